package worker

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/8265a91a/supervisor/internal/sys"
)

// stat is what is needed of /proc/PID/stat.
type stat struct {
	pid, ppid, session, threads int
	state                       byte
	kernel                      bool // a kernel thread
	start                       uint64
}

// dead tells a zombie from a process whose first thread alone has ended.
func (s *stat) dead() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

func readStat(pid int, buf []byte) (stat, error) {
	data, err := sys.ReadProc("/proc/"+strconv.Itoa(pid)+"/stat", buf)
	if err != nil {
		return stat{}, err
	}
	st, err := parseStat(data)
	st.pid = pid
	return st, err
}

var errStat = errors.New("malformed /proc/PID/stat")

// parseStat counts fields from the last parenthesis: the command before it may hold anything.
func parseStat(data []byte) (stat, error) {
	var st stat
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return st, errStat
	}
	field := 2
	for f := range bytes.FieldsSeq(data[i+1:]) {
		field++
		var err error
		switch field {
		case 3:
			st.state = f[0]
		case 4:
			st.ppid, err = strconv.Atoi(string(f))
		case 6:
			st.session, err = strconv.Atoi(string(f))
		case 9:
			const pfKthread = 0x00200000
			var flags uint64
			flags, err = strconv.ParseUint(string(f), 10, 32)
			st.kernel = flags&pfKthread != 0
		case 20:
			st.threads, err = strconv.Atoi(string(f))
		case 22:
			st.start, err = strconv.ParseUint(string(f), 10, 64)
			if err == nil {
				return st, nil
			}
		}
		if err != nil {
			return st, errStat
		}
	}
	return st, errStat
}

package getsocks

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

const (
	// maxBatch is HAProxy's MAX_SEND_FD: musl refuses 253.
	maxBatch = 252
	// maxBatchBytes keeps a batch in one kernel buffer, because HAProxy acknowledges every read, not every batch.
	maxBatchBytes = 16 << 10
	maxRequest    = 1 << 10
	// patience bounds every wait for the peer. HAProxy itself waits 1s for an answer and acknowledges at once.
	patience = 5 * time.Second
)

// Serve reads one _getsocks request from c and answers it with sockets; no sockets are an answer too. It borrows both.
// It returns when the peer has acknowledged everything (or hung up after it was all sent), and gives up on a peer that
// is silent for 5 seconds, or when ctx ends. The deadline of c is used and cleared.
func Serve(ctx context.Context, c *net.UnixConn, sockets []Socket) error {
	return serve(ctx, c, func() ([]Socket, func()) { return sockets, func() {} })
}

// serve asks for the sockets only when the request has come, so that the answer is what is held at that moment.
func serve(ctx context.Context, c *net.UnixConn, sockets func() ([]Socket, func())) error {
	release := bind(ctx, c)
	defer release()
	s := session{ctx: ctx, conn: c, in: bufio.NewReaderSize(c, maxRequest)}
	if err := s.readRequest(); err != nil {
		return explain(ctx, err)
	}
	list, done := sockets()
	defer done()
	return explain(ctx, s.answer(list))
}

type session struct {
	ctx  context.Context
	conn *net.UnixConn
	in   *bufio.Reader
}

// await gives the peer another while, unless ctx has ended.
func (s *session) await() {
	s.conn.SetDeadline(time.Now().Add(patience))
	if s.ctx.Err() != nil {
		s.conn.SetDeadline(past)
	}
}

func (s *session) readRequest() error {
	s.await()
	line, err := s.in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	command, _, _ := strings.Cut(string(line), ";")
	if words := strings.Fields(command); len(words) == 0 || words[0] != strings.TrimSpace(request) {
		return fmt.Errorf("unknown request %.40q, want %q", line, request)
	}
	return nil
}

func (s *session) answer(sockets []Socket) error {
	if len(sockets) > MaxSockets {
		return fmt.Errorf("cannot send %d sockets, more than %d", len(sockets), MaxSockets)
	}
	batches, err := split(sockets)
	if err != nil {
		return err
	}
	s.await()
	if _, err := s.conn.Write(binary.NativeEndian.AppendUint32(nil, uint32(len(sockets)))); err != nil {
		return fmt.Errorf("send the number of sockets: %w", err)
	}
	sent := 0
	for i, b := range batches {
		s.await()
		if err := sys.WriteMessage(s.conn, b.metadata, b.fds); err != nil {
			return fmt.Errorf("send sockets (%d of %d so far): %w", sent, len(sockets), err)
		}
		sent += len(b.fds)
		_, err := io.ReadFull(s.in, make([]byte, 4))
		gone := err != nil && (hungUp(err) || errors.Is(err, io.EOF))
		if err != nil && !(gone && i == len(batches)-1) {
			return fmt.Errorf("wait for the acknowledgement of %d of %d sockets: %w", sent, len(sockets), err)
		}
	}
	return nil
}

type batch struct {
	metadata []byte
	fds      []int
}

// split encodes everything before the first byte is sent: a name that cannot be encoded must not end in half an answer.
func split(sockets []Socket) ([]batch, error) {
	var batches []batch
	var b batch
	for _, s := range sockets {
		if s.FD.Num() < 0 {
			return nil, errors.New("cannot send a socket that is closed")
		}
		var err error
		if b.metadata, err = appendRecord(b.metadata, s); err != nil {
			return nil, err
		}
		b.fds = append(b.fds, s.FD.Num())
		if len(b.fds) == maxBatch || len(b.metadata) > maxBatchBytes-maxRecord {
			batches, b = append(batches, b), batch{}
		}
	}
	if len(b.fds) > 0 {
		batches = append(batches, b)
	}
	return batches, nil
}

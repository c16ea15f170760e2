package activation_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
)

// The numbers are never used as descriptors by Plan.
var planned = []activation.Socket{
	{Name: "http", Network: "tcp", Host: "127.0.0.1", Port: 80, FD: 50},
	{Name: "dns", FDName: "dns-fd", Network: "udp", Host: "::", Port: 53, FD: 51},
	{Name: "unix", Network: "unix", Path: "/run/x.sock", FD: 52},
}

func TestPlanConventions(t *testing.T) {
	pid := os.Getpid()
	for _, tt := range []struct {
		convention string
		env        []string
		shim       bool
	}{
		{"systemd", []string{"LISTEN_FDS=3", "LISTEN_FDNAMES=http:dns-fd:unix"}, true},
		{"nginx", []string{"NGINX=3;4;5;"}, false},
		{"fpm", []string{"FPM_SOCKETS=127.0.0.1:80=3,/run/x.sock=5"}, false},
		{"starter", []string{"SERVER_STARTER_PORT=127.0.0.1:80=3;[::]:53=4;/run/x.sock=5", "SERVER_STARTER_GENERATION=7"}, false},
		{"unicorn", []string{"UNICORN_FD=3,5"}, false},
		{"nghttpx", []string{"NGHTTPX_ACCEPT_1=tcp,3", "NGHTTPX_ACCEPT_2=unix,5,/run/x.sock"}, false},
		{"einhorn", []string{
			fmt.Sprint("EINHORN_MASTER_PID=", pid), "EINHORN_FD_COUNT=3",
			"EINHORN_FD_0=3", "EINHORN_FD_FAMILY_0=AF_INET",
			"EINHORN_FD_1=4", "EINHORN_FD_FAMILY_1=AF_INET6",
			"EINHORN_FD_2=5", "EINHORN_FD_FAMILY_2=AF_UNIX",
		}, false},
		{"argv", nil, false},
	} {
		t.Run(tt.convention, func(t *testing.T) {
			got, err := activation.Plan([]string{tt.convention}, planned, [3]int{0, 1, 2}, activation.Options{Generation: 7})
			if err != nil {
				t.Fatal(err)
			}
			want := activation.Layout{
				Env: tt.env, Files: []int{0, 1, 2, 50, 51, 52}, ChildFD: map[string]int{"http": 3, "dns": 4, "unix": 5},
				Shim: tt.shim, Getsocks: -1, Bind: -1,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanWithoutDescriptors(t *testing.T) {
	a, b := listener(t), listener(t)
	got, err := activation.Plan([]string{"getsocks", "bind"}, planned, [3]int{7, 8, 9}, activation.Options{Getsocks: a, Bind: b})
	if err != nil {
		t.Fatal(err)
	}
	want := activation.Layout{
		Files: []int{7, 8, 9, a.Num(), b.Num()}, ChildFD: map[string]int{}, Shim: true, Getsocks: 3, Bind: 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanSeveralAtOnce(t *testing.T) {
	got, err := activation.Plan([]string{"stdin", "systemd", "nginx"}, planned[:1], [3]int{7, 8, 9}, activation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := activation.Layout{
		Env:   []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=http", "NGINX=3;"},
		Files: []int{50, 8, 9, 50}, ChildFD: map[string]int{"http": 3}, Shim: true, Getsocks: -1, Bind: -1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Ten thousand generated names are more than execve(2) takes in one variable; those that were given are kept.
func TestPlanManyNames(t *testing.T) {
	list := []activation.Socket{{Name: "http", FDName: "http"}}
	for i := range 10000 {
		list = append(list, activation.Socket{Name: fmt.Sprintf("tcp-127.0.0.1_%d", 20000+i)})
	}
	for n, want := range map[int]string{2: "http:tcp-127.0.0.1_20000", len(list): "http:unknown:unknown:"} {
		l, err := activation.Plan([]string{"systemd"}, list[:n], [3]int{0, 1, 2}, activation.Options{})
		if err != nil {
			t.Fatal(err)
		}
		names := strings.TrimPrefix(l.Env[1], "LISTEN_FDNAMES=")
		if !strings.HasPrefix(names, want) || strings.Count(names, ":") != n-1 || len(l.Env[1]) >= 128<<10 {
			t.Errorf("%d names, %d bytes: %.80s", n, len(l.Env[1]), names)
		}
	}
}

func TestPlanStdin(t *testing.T) {
	got, err := activation.Plan([]string{"stdin"}, planned[:1], [3]int{7, 8, 9}, activation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := activation.Layout{Files: []int{50, 8, 9}, ChildFD: map[string]int{"http": 0}, Getsocks: -1, Bind: -1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, tt := range []struct {
		name        string
		conventions []string
		sockets     []activation.Socket
		want        string
	}{
		{"unknown", []string{"sytemd"}, nil, `unknown convention "sytemd" (known: systemd, `},
		{"twice", []string{"nginx", "nginx"}, nil, "listed twice"},
		{"stdin without socket", []string{"stdin"}, nil, "exactly one socket, not 0"},
		{"stdin with three", []string{"stdin"}, planned, "exactly one socket, not 3"},
		{"bind without socket pair", []string{"bind"}, planned, "needs a socket pair"},
		{"same name", []string{"argv"}, []activation.Socket{planned[0], planned[0]}, `two sockets are called "http"`},
		{"bad name", []string{"argv"}, []activation.Socket{{Name: "a:b"}}, "contains"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := activation.Plan(tt.conventions, tt.sockets, [3]int{0, 1, 2}, activation.Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// plan lays sockets out for real descriptors.
func plan(t *testing.T, conventions []string, fds ...*sys.FD) activation.Layout {
	t.Helper()
	var sockets []activation.Socket
	for i, fd := range fds {
		s, err := sys.Inspect(fd.Num())
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, activation.Socket{
			Name: fmt.Sprint("socket-", i), Network: s.Network, Host: s.Host, Port: s.Port, FD: fd.Num(),
		})
	}
	l, err := activation.Plan(conventions, sockets, [3]int{0, 1, 2}, activation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

package load_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

func TestScript(t *testing.T) {
	greeting := []load.Step{{Expect: "220 "}, {Expect: "\r\n"}, {Send: "QUIT\r\n", Expect: "221 "}}
	tests := []struct {
		name   string
		answer func(net.Conn)
		want   load.Kind
	}{
		{"as expected", func(c net.Conn) { _, _ = c.Write([]byte("220 hello\r\n")); say(c, "221 bye\r\n") }, load.OK},
		{"cut after the greeting", func(c net.Conn) { _, _ = c.Write([]byte("220 hello\r\n")) }, load.Cut},
		{"other words", func(c net.Conn) { _, _ = c.Write([]byte("421 too many\r\n")) }, load.Cut},
		{"silence", func(c net.Conn) { time.Sleep(500 * time.Millisecond) }, load.Timeout},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			result := load.Start(context.Background(), load.Options{Target: serve(t, test.answer), Requests: 1, Script: greeting,
				Clients: map[load.Class]int{load.Late: 1}, Late: time.Millisecond, Timeout: 300 * time.Millisecond}).Wait()
			c := result.Classes[load.Late]
			if test.want == load.Cut && c.Kinds[load.Reset] == 1 {
				return // what was sent and not read makes the kernel reset
			}
			if c.Kinds[test.want] != 1 {
				t.Errorf("want one %s, got %s", test.want, result)
			}
		})
	}
}

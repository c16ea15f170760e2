//go:build vm

package matrix

import (
	"strings"

	"github.com/8265a91a/supervisor/test/load"
)

// Protocols as scripts.
var (
	redisPing    = []load.Step{{Send: "PING\r\n", Expect: "+PONG\r\n"}}
	memcached    = []load.Step{{Send: "version\r\n", Expect: "VERSION "}, {Expect: "\r\n"}}
	natsPing     = []load.Step{{Expect: "INFO "}, {Expect: "\r\n"}, {Send: "CONNECT {\"verbose\":false}\r\nPING\r\n", Expect: "PONG\r\n"}}
	mqttConnect  = []load.Step{{Send: "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", Expect: "\x20\x02\x00\x00"}}
	ftpGreeting  = []load.Step{{Expect: "220 "}, {Expect: "\r\n"}, {Send: "QUIT\r\n", Expect: "221 "}}
	imapGreeting = []load.Step{{Expect: "* OK "}, {Send: "a LOGOUT\r\n", Expect: "a OK"}}
	sshGreeting  = []load.Step{{Expect: "SSH-2.0-"}, {Expect: "\r\n"}}
)

// question asks for the address of a.zz, which is 127.0.0.7 in all the name servers here.
const (
	question = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02zz\x00\x00\x01\x00\x01"
	address  = "\x00\x04\x7f\x00\x00\x07"
)

var (
	dnsUDP = []load.Step{{Send: question, Expect: address}}
	dnsTCP = []load.Step{{Send: "\x00" + string(rune(len(question))) + question, Expect: address}}
)

// fastCGI asks for a script, which prints "pid=", and waits for the end of the request.
func fastCGI(file string) []load.Step {
	var params strings.Builder
	for _, kv := range [][2]string{{"SCRIPT_FILENAME", file}, {"REQUEST_METHOD", "GET"}, {"SCRIPT_NAME", "/"}, {"QUERY_STRING", ""}} {
		params.WriteByte(byte(len(kv[0])))
		params.WriteByte(byte(len(kv[1])))
		params.WriteString(kv[0] + kv[1])
	}
	const begin, end, parameters, stdin = 1, 3, 4, 5
	request := record(begin, "\x00\x01\x00\x00\x00\x00\x00\x00") + record(parameters, params.String()) + record(parameters, "") + record(stdin, "")
	return []load.Step{{Send: request, Expect: "pid="}, {Expect: record(end, "........")[:6]}}
}

func record(kind byte, body string) string {
	return string([]byte{1, kind, 0, 1, 0, byte(len(body)), 0, 0}) + body
}

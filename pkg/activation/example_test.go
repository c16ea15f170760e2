package activation_test

import (
	"fmt"
	"strings"

	"github.com/8265a91a/supervisor/pkg/activation"
)

// A worker that knows systemd's convention and nginx's gets the same sockets by both.
func ExamplePlan() {
	sockets := []activation.Socket{
		{Name: "http", Network: "tcp", Host: "127.0.0.1", Port: 80, FD: 10},
		{Name: "https", Network: "tcp", Host: "127.0.0.1", Port: 443, FD: 11},
	}
	layout, err := activation.Plan([]string{"systemd", "nginx"}, sockets, [3]int{0, 1, 2}, activation.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Join(layout.Env, "\n"))
	fmt.Println(activation.ShimArgs("/usr/bin/supervisor", layout, []string{"/usr/sbin/server", "--pid=${pid}"}))
	// Output:
	// LISTEN_FDS=2
	// LISTEN_FDNAMES=http:https
	// NGINX=3;4;
	// [/usr/bin/supervisor exec-shim -- /usr/sbin/server --pid=${pid}]
}

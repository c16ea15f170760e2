// Package graceful makes a Go server a good worker: it takes its sockets from
// whoever started it, says when it is ready, and stops without losing a request.
//
//	w, err := graceful.New(graceful.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	l, err := w.Listen("http", "tcp", "127.0.0.1:8080")
//	if err != nil {
//		log.Fatal(err)
//	}
//	w.HTTP(l, &http.Server{Handler: mux})
//	if err := w.Run(context.Background()); err != nil {
//		log.Fatal(err)
//	}
//
// The same program runs under the supervisor, under a plain systemd service with
// socket activation, and by hand: where nothing was passed the sockets are bound. A
// listening socket that was passed and is not served is an error, because its
// clients would wait for ever; under the supervisor, which looks itself, it is closed.
//
// # The order of a drain
//
// SIGTERM, SIGINT or the end of Run's context begin it:
//
//  1. The listeners are closed; STOPPING=1. Other holders of the sockets (the next
//     generation, the supervisor, systemd) keep them, so that nothing is refused.
//     A manager that does not read its messages delays nothing.
//  2. What was accepted is served, also where the request is still to come:
//     [http.Server.Shutdown] would close such connections (Go 1.25 and later even
//     after it has read the request, golang/go#75591), so it is not called yet.
//     Answers say Connection: close, in HTTP/2 they bring GOAWAY.
//  3. Connections that are or become idle have [Options].Idle for one more request,
//     then they are closed; those that have never sent one have [Options].Grace,
//     however old they are. Each listener drains for itself.
//  4. Shutdown, and Run returns. [Options].Timeout bounds all of it. A SIGINT ends it
//     at once, and so does a SIGTERM after the first 5 s: one that follows the first
//     on its heels only repeats it. Requests that are cut by that are an error of Run.
//
// A signal between two generations that share a socket costs nothing then. What
// remains is HTTP/1.1's own race: a request that a client sends on a kept
// connection in the moment in which that is closed.
//
// # Between generations
//
// [Worker.Keep] stores a blob under a name in the FD store of whoever started this
// process, [Worker.State] reads it in the next generation; [Worker.KeepConn] and
// [Worker.File] do so with descriptors. [Worker.Getsocks] serves the listening
// sockets by HAProxy's _getsocks protocol.
//
// Go makes every socket that it listens on non-blocking, for all who share it.
// Linux 5.10 or newer; systemd 227 for names, 246 for the store's barrier.
package graceful

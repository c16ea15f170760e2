import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** Answers on the socket that is descriptor 0; on SIGTERM it stops accepting, answers what it has accepted, and ends. */
public class Server {
    public static void main(String[] args) throws Exception {
        String mode = Files.exists(Path.of("mode")) ? Files.readString(Path.of("mode")).trim() : "";
        switch (mode) {
            case "exit" -> throw new IOException("no database, giving up");
            case "hang" -> Thread.sleep(3600_000);
            default -> { }
        }
        ServerSocketChannel listener = mode.equals("ignore")
            ? ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", 0))
            : (ServerSocketChannel) System.inheritedChannel();
        ExecutorService pool = Executors.newCachedThreadPool();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            pool.shutdown();
            try { pool.awaitTermination(20, TimeUnit.SECONDS); } catch (InterruptedException e) { }
        }));
        if (mode.equals("die")) Thread.ofPlatform().start(() -> { pause(100); Runtime.getRuntime().halt(7); });
        while (true) {
            SocketChannel connection = listener.accept();
            pool.execute(() -> answer(connection));
        }
    }

    static void answer(SocketChannel connection) {
        try (connection) {
            ByteBuffer in = ByteBuffer.allocate(4096);
            StringBuilder request = new StringBuilder();
            while (request.indexOf("\r\n\r\n") < 0) {
                if (connection.read(in.clear()) < 0) return;
                request.append(new String(in.array(), 0, in.position()));
            }
            if (request.indexOf("GET /slow") == 0) pause(1000);
            String body = "pid=" + ProcessHandle.current().pid() + "\n";
            connection.write(ByteBuffer.wrap(("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + body.length() + "\r\n\r\n" + body).getBytes()));
        } catch (IOException e) {
            // the client is gone
        }
    }

    static void pause(long ms) {
        try { Thread.sleep(ms); } catch (InterruptedException e) { }
    }
}

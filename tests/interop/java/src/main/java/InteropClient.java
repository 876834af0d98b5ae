import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslHandler;
import io.rsocket.RSocket;
import io.rsocket.SocketAcceptor;
import io.rsocket.core.RSocketConnector;
import io.rsocket.core.Resume;
import io.rsocket.lease.Lease;
import io.rsocket.transport.ClientTransport;
import io.rsocket.transport.netty.client.TcpClientTransport;
import io.rsocket.transport.netty.client.WebsocketClientTransport;
import java.io.File;
import java.net.URI;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import reactor.core.publisher.Flux;
import reactor.netty.http.client.HttpClient;
import reactor.netty.tcp.SslProvider;
import reactor.netty.tcp.TcpClient;
import reactor.util.retry.Retry;

/**
 * A client on rsocket-java: java InteropClient tls://localhost:8088 DIRECTORY STEP...
 *
 * <p>The URL may also be wss://localhost:9088/rsocket; with ?lease or ?resume at its end the session has leases or is
 * resumed after a loss. DIRECTORY has privateKey.pem, device.crt and sonarCA.crt. The names of the steps are those of
 * scenario.toml.
 */
public final class InteropClient {
    private static final int FRAGMENT = 1024;
    private static final int STEP_LIMIT_S = 40;
    private static final Flux<Lease> LEASES = Flux.just(Lease.create(Duration.ofMinutes(1), 100)); // to the broker

    public static void main(String[] arguments) throws Exception {
        List<String> given = List.of(arguments);
        RSocket rsocket = connect(URI.create(given.get(0)), new File(given.get(1)));
        Steps steps = new Steps(rsocket);
        ExecutorService worker = Executors.newCachedThreadPool();
        for (String step : given.subList(2, given.size())) {
            System.out.println(new String(Wire.json(told(worker, steps, step))));
        }
        rsocket.dispose();
        System.exit(0);
    }

    private static Map<String, Object> told(ExecutorService worker, Steps steps, String step) {
        try {
            Object detail = worker.submit(() -> steps.take(step)).get(STEP_LIMIT_S, TimeUnit.SECONDS);
            return Map.of("step", step, "ok", true, "detail", detail);
        } catch (Exception error) {
            return Map.of("step", step, "ok", false, "detail", String.valueOf(error.getMessage()));
        }
    }

    private static RSocket connect(URI uri, File directory) throws SSLException {
        RSocketConnector connector = RSocketConnector.create()
                .metadataMimeType(Wire.COMPOSITE)
                .dataMimeType("application/octet-stream")
                .keepAlive(Duration.ofSeconds(10), Duration.ofSeconds(60))
                .fragment(FRAGMENT)
                .acceptor(SocketAcceptor.with(new Responder()));
        if ("lease".equals(uri.getQuery())) {
            connector.lease(spec -> spec.maxPendingRequests(100).sender(() -> LEASES));
        } else if ("resume".equals(uri.getQuery())) {
            connector.resume(new Resume().retry(Retry.fixedDelay(10, Duration.ofMillis(100))));
        }
        return connector.connect(transport(uri, directory)).block();
    }

    private static ClientTransport transport(URI uri, File directory) throws SSLException {
        SslContext context = SslContextBuilder.forClient()
                .trustManager(new File(directory, "sonarCA.crt"))
                .keyManager(new File(directory, "device.crt"), new File(directory, "privateKey.pem"))
                .build();
        Consumer<SslProvider.SslContextSpec> tls =
                spec -> spec.sslContext(context).handlerConfigurator(InteropClient::checkName);
        if (uri.getScheme().equals("wss")) {
            HttpClient client = HttpClient.create().host(uri.getHost()).port(uri.getPort()).secure(tls);
            return WebsocketClientTransport.create(client, uri.getPath());
        }
        return TcpClientTransport.create(TcpClient.create().host(uri.getHost()).port(uri.getPort()).secure(tls));
    }

    /** The name in the server's certificate must be the one that was asked for. */
    private static void checkName(SslHandler handler) {
        SSLParameters checked = handler.engine().getSSLParameters();
        checked.setEndpointIdentificationAlgorithm("HTTPS");
        handler.engine().setSSLParameters(checked);
    }
}

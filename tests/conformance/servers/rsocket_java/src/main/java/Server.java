// A server on rsocket-java with the routes that the judge asks for: `java Server PORT LEASE_PORT`. Plain TCP on loopback.

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.rsocket.Payload;
import io.rsocket.RSocket;
import io.rsocket.core.RSocketServer;
import io.rsocket.core.Resume;
import io.rsocket.lease.Lease;
import io.rsocket.metadata.CompositeMetadata;
import io.rsocket.metadata.CompositeMetadataCodec;
import io.rsocket.metadata.RoutingMetadata;
import io.rsocket.metadata.TaggingMetadataCodec;
import io.rsocket.metadata.WellKnownMimeType;
import io.rsocket.transport.netty.server.TcpServerTransport;
import io.rsocket.util.DefaultPayload;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

public final class Server {
  private static final int FRAGMENT = 1 << 20;
  private static final int MESSAGE = 64 << 20;
  private static final int CREDIT = 32;
  private static final int LEASE_REQUESTS = 5;

  private static final AtomicInteger FIRED = new AtomicInteger();
  private static final AtomicInteger WAITS = new AtomicInteger();
  private static final AtomicInteger FLOWS = new AtomicInteger();
  private static final AtomicInteger MADE = new AtomicInteger();
  private static final AtomicInteger PUSHED = new AtomicInteger();

  public static void main(String[] arguments) {
    Lease lease = Lease.create(Duration.ofMinutes(1), LEASE_REQUESTS);
    server()
        .lease(spec -> spec.sender(() -> Flux.just(lease).concatWith(Flux.never())).maxPendingRequests(16))
        .bindNow(transport(arguments[1]));
    server().bindNow(transport(arguments[0])).onClose().block();
  }

  private static RSocketServer server() {
    return RSocketServer.create((setup, client) -> Mono.just(new Judged(client)))
        .fragment(FRAGMENT)
        .maxInboundPayloadSize(MESSAGE)
        .resume(new Resume().sessionDuration(Duration.ofSeconds(30)));
  }

  private static TcpServerTransport transport(String port) {
    return TcpServerTransport.create("127.0.0.1", Integer.parseInt(port));
  }

  private static String route(ByteBuf metadata) {
    for (CompositeMetadata.Entry entry : new CompositeMetadata(metadata, false)) {
      if (WellKnownMimeType.MESSAGE_RSOCKET_ROUTING.getString().equals(entry.getMimeType())) {
        return new RoutingMetadata(entry.getContent()).iterator().next();
      }
    }
    throw new IllegalArgumentException("no route");
  }

  private static Payload json(String text) {
    return DefaultPayload.create(text);
  }

  private static byte[] routed() {
    CompositeByteBuf metadata = ByteBufAllocator.DEFAULT.compositeBuffer();
    ByteBuf tag = TaggingMetadataCodec.createTaggingContent(ByteBufAllocator.DEFAULT, List.of("call.it"));
    CompositeMetadataCodec.encodeAndAddMetadata(
        metadata, ByteBufAllocator.DEFAULT, WellKnownMimeType.MESSAGE_RSOCKET_ROUTING, tag);
    byte[] bytes = ByteBufUtil.getBytes(metadata);
    metadata.release();
    return bytes;
  }

  private static Payload toClient(String data) {
    return DefaultPayload.create(data.getBytes(), routed());
  }

  private static Mono<Payload> listed(Flux<Payload> answers) {
    return answers
        .map(Payload::getDataUtf8)
        .onErrorResume(error -> Flux.just("{\"error\": \"" + error.getClass().getSimpleName() + "\"}"))
        .collect(Collectors.joining(", ", "[", "]"))
        .map(Server::json);
  }

  private static Payload copy(Payload payload) {
    ByteBuffer metadata = payload.hasMetadata() ? payload.getMetadata() : null;
    return DefaultPayload.create(payload.getData(), metadata);
  }

  private static Flux<Payload> planned(String plan) {
    String[] parts = plan.split(":");
    int size = Integer.parseInt(parts[1]);
    return Flux.range(0, Integer.parseInt(parts[0])).map(number -> DefaultPayload.create(new byte[size]));
  }

  private static Flux<Payload> flow() {
    return Flux.<Payload, Integer>generate(
            () -> 0,
            (number, sink) -> {
              MADE.incrementAndGet();
              sink.next(DefaultPayload.create(String.valueOf(number)));
              return number + 1;
            })
        .doOnCancel(FLOWS::incrementAndGet)
        .subscribeOn(Schedulers.boundedElastic());
  }

  private static final class Judged implements RSocket {
    private final RSocket client;

    Judged(RSocket client) {
      this.client = client;
    }

    @Override
    public Mono<Payload> requestResponse(Payload payload) {
      String route = route(payload.sliceMetadata());
      switch (route) {
        case "echo.request":
          return Mono.just(copy(payload));
        case "probe.metadata":
          return Mono.just(DefaultPayload.create(payload.getMetadata()));
        case "echo.slow":
          return Mono.delay(Duration.ofMillis(Long.parseLong(payload.getDataUtf8()))).map(tick -> copy(payload));
        case "echo.error":
          return Mono.error(new IllegalStateException("echo.error always fails."));
        case "echo.never":
          return Mono.never();
        case "probe.wait":
          return Mono.<Payload>never().doOnCancel(WAITS::incrementAndGet);
        case "echo.fired":
          return Mono.just(json("{\"count\": " + FIRED + "}"));
        case "probe.seen":
          return Mono.just(
              json(
                  String.format(
                      "{\"waits_cancelled\": %s, \"flows_cancelled\": %s, \"made\": %s, \"pushed\": %s}",
                      WAITS, FLOWS, MADE, PUSHED)));
        case "call.response":
          return listed(client.requestResponse(toClient(payload.getDataUtf8())).flux());
        case "call.fire":
          return client.fireAndForget(toClient(payload.getDataUtf8())).thenReturn(json("[]"));
        case "call.stream":
          {
            long limit = Long.parseLong(payload.getDataUtf8());
            Flux<Payload> answers = client.requestStream(toClient("{}")).limitRate(CREDIT);
            return listed(limit == 0 ? answers : answers.take(limit));
          }
        case "call.channel":
          {
            int count = Integer.parseInt(payload.getDataUtf8());
            Flux<Payload> values =
                Flux.range(0, count)
                    .map(n -> n == 0 ? toClient("0") : DefaultPayload.create(String.valueOf(n)));
            return listed(client.requestChannel(values).limitRate(CREDIT));
          }
        default:
          return Mono.error(new IllegalArgumentException("no route " + route));
      }
    }

    @Override
    public Mono<Void> fireAndForget(Payload payload) {
      if (route(payload.sliceMetadata()).equals("echo.fire")) {
        FIRED.incrementAndGet();
      }
      return Mono.empty();
    }

    @Override
    public Mono<Void> metadataPush(Payload payload) {
      if (route(payload.sliceMetadata()).equals("push.count")) {
        PUSHED.incrementAndGet();
      }
      return Mono.empty();
    }

    @Override
    public Flux<Payload> requestStream(Payload payload) {
      String route = route(payload.sliceMetadata());
      switch (route) {
        case "echo.stream":
          return planned(payload.getDataUtf8());
        case "echo.stream-error":
          return planned(payload.getDataUtf8())
              .concatWith(Mono.error(new IllegalStateException("echo.stream-error fails.")));
        case "probe.flow":
          return flow();
        default:
          return Flux.error(new IllegalArgumentException("no route " + route));
      }
    }

    @Override
    public Flux<Payload> requestChannel(Publisher<Payload> payloads) {
      return Flux.from(payloads)
          .switchOnFirst(
              (signal, all) -> {
                if (!signal.hasValue()) {
                  return all;
                }
                String route = route(signal.get().sliceMetadata());
                switch (route) {
                  case "echo.channel":
                    return all.map(Server::copy);
                  case "probe.collect":
                    return all.map(one -> sizes(one))
                        .collect(Collectors.joining(", ", "[", "]"))
                        .map(Server::json)
                        .flux();
                  case "probe.fail":
                    return all.index()
                        .map(
                            one -> {
                              if (one.getT1() > 0) {
                                throw new IllegalStateException("probe.fail fails at the second payload.");
                              }
                              return copy(one.getT2());
                            });
                  default:
                    return Flux.error(new IllegalArgumentException("no route " + route));
                }
              });
    }

    private static String sizes(Payload payload) {
      int metadata = payload.hasMetadata() ? payload.getMetadata().remaining() : -1;
      return "[" + payload.getData().remaining() + ", " + metadata + "]";
    }
  }
}

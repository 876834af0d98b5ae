import io.rsocket.Payload;
import io.rsocket.RSocket;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** What the client answers when the broker calls. */
final class Responder implements RSocket {
    static final String NO = "the client says no";
    private final Map<String, Sinks.One<Boolean>> notes = new ConcurrentHashMap<>();
    private volatile int made;

    @Override
    public Mono<Payload> requestResponse(Payload payload) {
        String route = Wire.route(payload);
        byte[] data = Wire.data(payload);
        return switch (route) {
            case "interop.same" -> Mono.just(Wire.payload(data));
            case "interop.add" -> answer(Wire.parse(data).get("a").asInt() + Wire.parse(data).get("b").asInt());
            case "interop.size" -> answer(data.length);
            case "interop.made" -> answer(made);
            case "interop.heard" -> note(Wire.parse(data).asText()).asMono().map(Wire::json).map(Wire::payload);
            case "interop.never" -> Mono.<Payload>never().doOnCancel(() -> happened(route));
            default -> Mono.error(new RuntimeException(NO));
        };
    }

    @Override
    public Mono<Void> fireAndForget(Payload payload) {
        return take(payload);
    }

    @Override
    public Mono<Void> metadataPush(Payload payload) {
        return take(payload);
    }

    @Override
    public Flux<Payload> requestStream(Payload payload) {
        String route = Wire.route(payload);
        byte[] data = Wire.data(payload);
        return switch (route) {
            case "interop.count" -> count(Wire.parse(data).asInt());
            case "interop.fails" -> count(Wire.parse(data).asInt()).concatWith(Mono.error(new RuntimeException(NO)));
            default -> count(Integer.MAX_VALUE).doOnCancel(() -> happened(route));
        };
    }

    @Override
    public Flux<Payload> requestChannel(Publisher<Payload> payloads) {
        return Flux.from(payloads).limitRate(2).switchOnFirst((first, all) -> {
            if (Wire.route(first.get()).equals("interop.once")) {
                return all.take(1).concatWith(Mono.error(new RuntimeException(NO)));
            }
            return all.map(Wire::data).map(data -> Wire.payload(Wire.json(2 * Wire.parse(data).asInt())));
        });
    }

    private Flux<Payload> count(int last) {
        return Flux.range(1, last).doOnNext(number -> made = number).map(Wire::json).map(Wire::payload);
    }

    private Mono<Void> take(Payload payload) {
        happened(Wire.route(payload));
        payload.release();
        return Mono.empty();
    }

    /** What `route` was used for has happened. */
    private void happened(String route) {
        note(route.replace("interop.", "")).tryEmitValue(true);
    }

    private Sinks.One<Boolean> note(String name) {
        return notes.computeIfAbsent(name, key -> Sinks.one());
    }

    private static Mono<Payload> answer(int value) {
        return Mono.just(Wire.payload(Wire.json(value)));
    }
}

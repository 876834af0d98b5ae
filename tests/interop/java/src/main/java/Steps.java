import com.fasterxml.jackson.databind.JsonNode;
import io.rsocket.Payload;
import io.rsocket.RSocket;
import io.rsocket.RSocketErrorException;
import io.rsocket.exceptions.ApplicationErrorException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import org.reactivestreams.Subscription;
import reactor.core.Disposable;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The requests of the client, by the names that scenario.toml gives them. */
final class Steps {
    private static final int LARGE = 200_000;
    private final RSocket rsocket;
    private final Map<String, Callable<Object>> steps = new LinkedHashMap<>();

    Steps(RSocket rsocket) {
        this.rsocket = rsocket;
        steps.put("response", this::response);
        steps.put("response-empty", () -> Map.of("size", ask("echo.request", new byte[0]).length));
        steps.put("response-error", () -> failure(rsocket.requestResponse(to("echo.error", ""))));
        steps.put("response-invalid", this::responseInvalid);
        steps.put("response-fragments", this::responseFragments);
        steps.put("response-cancel", this::responseCancel);
        steps.put("fire", () -> fire(new byte[0]));
        steps.put("fire-fragments", () -> fire(pattern()));
        steps.put("push", this::push);
        steps.put("stream", () -> sizes(rsocket.requestStream(to("echo.stream", "7:100")).limitRate(2, 0)));
        steps.put("stream-credit", this::streamCredit);
        steps.put("stream-cancel", this::streamCancel);
        steps.put("stream-error", () -> failing(rsocket.requestStream(to("echo.stream-error", "3:10"))));
        steps.put("stream-fragments", () -> sizes(rsocket.requestStream(to("echo.stream", "1:16777215"))));
        steps.put("channel", this::channel);
        steps.put("channel-credit", this::channelCredit);
        steps.put("channel-fragments", () -> sizes(channel("echo.channel", 2, index -> pattern())));
        steps.put("channel-error", () -> failing(channel("interop.once", 2, Steps::number)));
        steps.put("channel-fails", this::channelFails);
        steps.put("channel-cancel", this::channelCancel);
        steps.put("lease", this::lease);
        steps.put("resume", this::resume);
    }

    /** One step; those that are not the client's own are asked of the broker. */
    Object take(String step) throws Exception {
        Callable<Object> own = steps.get(step);
        return own != null ? own.call() : call("interop.drive", Map.of("step", step));
    }

    private Object response() {
        byte[] data = HexFormat.of().parseHex("00ff68656c6c6f");
        Payload answer = rsocket.requestResponse(Wire.to("echo.request", data)).block();
        String route = Wire.route(answer);
        return Map.of("data", HexFormat.of().formatHex(Wire.data(answer)), "route", route);
    }

    private Object responseInvalid() {
        return Map.of("code", failure(rsocket.requestResponse(to("echo.nowhere", ""))).get("code"));
    }

    private Object responseFragments() {
        byte[] answer = ask("echo.request", pattern());
        return Map.of("size", answer.length, "same", Arrays.equals(answer, pattern()));
    }

    private Object responseCancel() {
        Disposable never = rsocket.requestResponse(Wire.to("interop.never", Wire.json(Map.of()))).subscribe();
        call("echo.request", Map.of()); // the other request is on its way by now
        never.dispose();
        return Map.of("stopped", heard("never"));
    }

    private Object fire(byte[] data) {
        rsocket.fireAndForget(Wire.to("interop.fired", data)).block();
        return Map.of("heard", heard("fired"));
    }

    private Object push() {
        rsocket.metadataPush(Wire.to("interop.pushed", new byte[0])).block();
        return Map.of("heard", heard("pushed"));
    }

    private Object streamCredit() throws InterruptedException {
        Patient patient = new Patient();
        rsocket.requestStream(to("interop.numbers", "")).subscribe(patient);
        int first = settled(patient, 3);
        int then = settled(patient, 4);
        patient.cancel();
        return Map.of("first", first, "then", then, "stopped", heard("numbers"));
    }

    /** Asks for `more`; the number of all that have come, once what might have been sent behind them has too. */
    private int settled(Patient patient, int more) throws InterruptedException {
        patient.expected = new CountDownLatch(more);
        patient.request(more);
        patient.expected.await();
        call("echo.request", Map.of());
        return patient.received;
    }

    private Object streamCancel() {
        Flux<byte[]> answers = rsocket.requestStream(to("interop.numbers", "")).map(Wire::data).take(5);
        return Map.of("received", answers.count().block(), "stopped", heard("numbers"));
    }

    private Object channel() {
        String[] words = {"one", "two", "three"};
        Flux<Payload> answers = channel("echo.channel", 3, index -> words[index].getBytes());
        return Map.of("data", answers.map(Wire::data).map(String::new).collectList().block());
    }

    private Object channelCredit() {
        Flux<Payload> answering = channel("echo.channel", 100, Steps::number).limitRate(2);
        List<byte[]> answers = answering.map(Wire::data).collectList().block();
        boolean inOrder = IntStream.range(0, 100).allMatch(index -> Arrays.equals(answers.get(index), number(index)));
        return Map.of("received", answers.size(), "in_order", inOrder);
    }

    private Object channelFails() {
        Flux<Payload> values = values("interop.listen", 3, Steps::number);
        rsocket.requestChannel(values.concatWith(Mono.error(new ApplicationErrorException(Responder.NO))))
                .subscribe(Payload::release, error -> {});
        return Map.of("heard", heard("listen"));
    }

    private Object channelCancel() {
        Flux<byte[]> answers = channel("interop.chat", 1, Steps::number).map(Wire::data).take(3);
        return Map.of("received", answers.count().block(), "stopped", heard("numbers"));
    }

    private Object lease() throws InterruptedException {
        CountDownLatch answered = new CountDownLatch(8);
        Flux.range(0, 8).flatMap(index -> rsocket.requestResponse(to("echo.request", "")))
                .subscribe(answer -> answered.countDown(), error -> {});
        answered.await(500, TimeUnit.MILLISECONDS);
        return Map.of("answered", 8 - answered.getCount());
    }

    private Object resume() {
        Payload request = Wire.to("interop.count", Wire.json(Map.of("last", 300, "size", 10_000)));
        List<Integer> numbers = rsocket.requestStream(request)
                .map(Wire::data)
                .map(data -> Integer.parseInt(new String(data).trim()))
                .collectList()
                .block();
        boolean inOrder = numbers.equals(IntStream.rangeClosed(1, 300).boxed().toList());
        return Map.of("received", numbers.size(), "in_order", inOrder);
    }

    // --- what they have in common ------------------------------------------------------------------------------------

    private static Payload to(String route, String data) {
        return Wire.to(route, data.getBytes());
    }

    private byte[] ask(String route, byte[] data) {
        return Wire.data(rsocket.requestResponse(Wire.to(route, data)).block());
    }

    private JsonNode call(String route, Object value) {
        return Wire.parse(ask(route, Wire.json(value)));
    }

    private JsonNode heard(String name) {
        return call("interop.heard", Map.of("name", name));
    }

    private Flux<Payload> channel(String route, int count, IntFunction<byte[]> data) {
        return rsocket.requestChannel(values(route, count, data));
    }

    /** Payloads for a channel. The first says where to. */
    private static Flux<Payload> values(String route, int count, IntFunction<byte[]> data) {
        return Flux.range(0, count)
                .map(index -> index == 0 ? Wire.to(route, data.apply(0)) : Wire.payload(data.apply(index)));
    }

    private static Map<String, Object> failure(Mono<?> refused) {
        Throwable error = refused.then(Mono.<Throwable>empty()).onErrorResume(Mono::just).block();
        return Map.of("code", ((RSocketErrorException) error).errorCode(), "text", error.getMessage());
    }

    private static Object failing(Flux<Payload> answers) {
        List<byte[]> received = new ArrayList<>();
        Map<String, Object> ended = failure(answers.map(Wire::data).doOnNext(received::add).then());
        return Map.of("received", received.size(), "code", ended.get("code"), "text", ended.get("text"));
    }

    private static Object sizes(Flux<Payload> answers) {
        return Map.of("sizes", answers.map(Wire::data).map(data -> data.length).collectList().block());
    }

    private static byte[] number(int index) {
        return String.valueOf(index).getBytes();
    }

    private static byte[] pattern() {
        byte[] pattern = new byte[LARGE];
        IntStream.range(0, LARGE).forEach(index -> pattern[index] = (byte) (index % 251));
        return pattern;
    }

    /** Takes no more than it is told to. */
    private static final class Patient extends BaseSubscriber<Payload> {
        volatile CountDownLatch expected;
        volatile int received;

        @Override
        protected void hookOnSubscribe(Subscription subscription) {}

        @Override
        protected void hookOnNext(Payload payload) {
            payload.release();
            received++;
            expected.countDown();
        }
    }
}

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.rsocket.Payload;
import io.rsocket.metadata.CompositeMetadata;
import io.rsocket.metadata.CompositeMetadataCodec;
import io.rsocket.metadata.RoutingMetadata;
import io.rsocket.metadata.TaggingMetadataCodec;
import io.rsocket.metadata.WellKnownMimeType;
import io.rsocket.util.DefaultPayload;
import java.util.List;

/** Routes, payloads and JSON. */
final class Wire {
    static final String ROUTING = WellKnownMimeType.MESSAGE_RSOCKET_ROUTING.getString();
    static final String COMPOSITE = WellKnownMimeType.MESSAGE_RSOCKET_COMPOSITE_METADATA.getString();
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private Wire() {}

    static Payload to(String route, byte[] data) {
        return DefaultPayload.create(Unpooled.wrappedBuffer(data), metadata(route));
    }

    static Payload payload(byte[] data) {
        return DefaultPayload.create(data);
    }

    static ByteBuf metadata(String route) {
        ByteBufAllocator allocator = ByteBufAllocator.DEFAULT;
        CompositeByteBuf metadata = allocator.compositeBuffer();
        ByteBuf content = TaggingMetadataCodec.createTaggingContent(allocator, List.of(route));
        CompositeMetadataCodec.encodeAndAddMetadata(metadata, allocator, ROUTING, content);
        return metadata;
    }

    static String route(Payload payload) {
        for (CompositeMetadata.Entry entry : new CompositeMetadata(payload.sliceMetadata(), false)) {
            if (ROUTING.equals(entry.getMimeType())) {
                return new RoutingMetadata(entry.getContent()).iterator().next();
            }
        }
        throw new IllegalArgumentException("no route");
    }

    /** The data of a payload, which is then given back to the library. */
    static byte[] data(Payload payload) {
        byte[] data = new byte[payload.data().readableBytes()];
        payload.data().getBytes(payload.data().readerIndex(), data);
        payload.release();
        return data;
    }

    static byte[] json(Object value) {
        try {
            return MAPPER.writeValueAsBytes(value);
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException(error);
        }
    }

    static JsonNode parse(byte[] data) {
        try {
            return MAPPER.readTree(data);
        } catch (java.io.IOException error) {
            throw new IllegalArgumentException(error);
        }
    }
}

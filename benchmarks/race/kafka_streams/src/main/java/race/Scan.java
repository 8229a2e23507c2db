package race;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.OffsetDateTime;

/** A valid scan. {@code at} is in epoch milliseconds, {@code kind} is 0 for a check-in and 1 for a check-out. */
record Scan(String venue, String visitor, long at, int kind, int persons) {
    private static final int LARGEST = 65_536;
    private static final JsonFactory JSON = new JsonFactory();

    /** The scan that a record holds; null for what a dead letter would be made of. Jackson's streaming parser: no tree, no bean. */
    static Scan decode(byte[] value) {
        if (value == null || value.length > LARGEST) {
            return null;
        }
        String event = null;
        String type = null;
        String venue = null;
        String visitor = null;
        String at = null;
        int persons = 1;
        try (JsonParser parser = JSON.createParser(value)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return null;
            }
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String field = parser.currentName();
                JsonToken token = parser.nextToken();
                switch (field) {
                    case "event_id" -> event = text(parser, token);
                    case "event_type" -> type = text(parser, token);
                    case "venue_id" -> venue = text(parser, token);
                    case "visitor_id" -> visitor = text(parser, token);
                    case "occurred_at" -> at = text(parser, token);
                    case "party_size" -> persons = token == JsonToken.VALUE_NUMBER_INT ? parser.getIntValue() : 0;
                    case "source" -> {
                        if (!isName(text(parser, token), 32)) {
                            return null;
                        }
                    }
                    default -> parser.skipChildren();
                }
            }
            if (parser.currentToken() != JsonToken.END_OBJECT || parser.nextToken() != null) {
                return null;
            }
        } catch (IOException refused) {
            return null;
        }
        boolean checkIn = "check_in".equals(type);
        if (!checkIn && !"check_out".equals(type) || persons < 1 || persons > 50 || at == null) {
            return null;
        }
        if (!isName(event, 64) || !isName(venue, 64) || !isName(visitor, 64)) {
            return null;
        }
        try {
            return new Scan(venue, visitor, OffsetDateTime.parse(at).toInstant().toEpochMilli(), checkIn ? 0 : 1, persons);
        } catch (DateTimeException refused) {
            return null;
        }
    }

    private static String text(JsonParser parser, JsonToken token) throws IOException {
        return token == JsonToken.VALUE_STRING ? parser.getText() : null;
    }

    private static boolean isName(String text, int longest) {
        if (text == null || text.isEmpty() || text.length() > longest) {
            return false;
        }
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean allowed = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || "._:-".indexOf(c) >= 0;
            if (!allowed) {
                return false;
            }
        }
        return true;
    }
}

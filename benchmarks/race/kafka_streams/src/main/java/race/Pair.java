package race;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** The scans of one visitor at one venue, sorted by (at, kind); as bytes 10 each, which is what the state store holds. */
final class Pair {
    static final long MAX_STAY = 4 * 3_600_000L;
    private static final long HARD_LIMIT = 24 * 3_600_000L;
    private static final int SIZE = Long.BYTES + 2;

    /** A visit is [start, left). "open": it ends by itself at {@code left}; whether it has, only the reader's clock says. */
    record Visit(long start, long left, String ended, int persons) {}

    private Pair() {}

    /** With the scan in its place, the larger party of two with one identity; null if that changes nothing. */
    static byte[] put(byte[] scans, Scan scan) {
        if (scans == null) {
            return ByteBuffer.allocate(SIZE).putLong(scan.at()).put((byte) scan.kind()).put((byte) scan.persons()).array();
        }
        ByteBuffer old = ByteBuffer.wrap(scans);
        int place = scans.length;
        while (place > 0) {
            long at = old.getLong(place - SIZE);
            int kind = old.get(place - 2);
            if (at < scan.at() || at == scan.at() && kind < scan.kind()) {
                break;
            }
            place -= SIZE;
            if (at == scan.at() && kind == scan.kind()) {
                if (old.get(place + SIZE - 1) >= scan.persons()) {
                    return null;
                }
                byte[] larger = scans.clone();
                larger[place + SIZE - 1] = (byte) scan.persons();
                return larger;
            }
        }
        return ByteBuffer.allocate(scans.length + SIZE)
                .put(scans, 0, place)
                .putLong(scan.at()).put((byte) scan.kind()).put((byte) scan.persons())
                .put(scans, place, scans.length - place)
                .array();
    }

    /** The visits, in order. */
    static List<Visit> fold(byte[] scans) {
        List<Visit> visits = new ArrayList<>(2);
        if (scans == null) {
            return visits;
        }
        ByteBuffer all = ByteBuffer.wrap(scans);
        long start = -1;
        int persons = 0;
        while (all.hasRemaining()) {
            long at = all.getLong();
            boolean checkIn = all.get() == 0;
            int party = all.get();
            if (checkIn) {
                if (start >= 0 && at >= start + MAX_STAY) {
                    visits.add(new Visit(start, start + MAX_STAY, "expired", persons));
                    start = -1;
                }
                if (start < 0) {
                    start = at;
                    persons = party;
                }
            } else if (start >= 0) {
                visits.add(at - start <= HARD_LIMIT
                        ? new Visit(start, at, "check_out", persons)
                        : new Visit(start, start + MAX_STAY, "expired", persons));
                start = -1;
            }
        }
        if (start >= 0) {
            visits.add(new Visit(start, start + MAX_STAY, "open", persons));
        }
        return visits;
    }
}

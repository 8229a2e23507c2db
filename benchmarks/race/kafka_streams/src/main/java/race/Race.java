package race;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams: a processor with two state stores (in RocksDB or in memory, cached, each with its changelog topic).
 *
 * <p>Visits and minutes go to topics, of which the newest record of each key holds: a JVM has no embedded ClickHouse, and the usual
 * way on is a sink connector. What changes several times within a second is forwarded once.
 *
 * <p>Call: {@code Race ADDRESS TOPIC RECORDS FOLDER VISITS_TOPIC MINUTES_TOPIC STORES}, where STORES is
 * rocksdb or memory; prints one JSON line at the end.
 */
public final class Race {
    private static final long MINUTE = 60_000;
    private static final int THREADS = 2;

    private final AtomicLong taken = new AtomicLong();
    private final AtomicLong refused = new AtomicLong();
    private final AtomicLong began = new AtomicLong();
    /** Tasks with rows that are not forwarded yet. */
    private final AtomicInteger waiting = new AtomicInteger();

    public static void main(String[] arguments) throws InterruptedException {
        new Race().run(arguments);
    }

    private void run(String[] arguments) throws InterruptedException {
        Properties settings = new Properties();
        String folder = arguments[3];
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "race-" + folder.substring(folder.lastIndexOf('/') + 1));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        // Commits every 30 s, as the default is: state that changes often is then written once.
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");

        KafkaStreams streams = new KafkaStreams(topology(arguments[1], arguments[4], arguments[5], arguments[6]), settings);
        streams.start();
        long expected = Long.parseLong(arguments[2]);
        while (taken.get() < expected || waiting.get() > 0) {
            if (streams.state() == KafkaStreams.State.ERROR) {
                System.exit(1);
            }
            Thread.sleep(5);
        }
        // Flushes the stores and the producers, and commits.
        streams.close(Duration.ofMinutes(1));
        double seconds = (System.nanoTime() - began.get()) / 1e9;
        System.out.printf("{\"scans\": %d, \"refused\": %d, \"seconds\": %f}%n", taken.get(), refused.get(), seconds);
    }

    private Topology topology(String source, String visits, String minutes, String stores) {
        StoreBuilder<?> pairStore = store("pairs", stores);
        StoreBuilder<?> minuteStore = store("minutes", stores);
        Topology topology = new Topology();
        topology.addSource("read", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), source);
        topology.addProcessor("pair", Pairing::new, "read");
        topology.addStateStore(pairStore, "pair");
        topology.addStateStore(minuteStore, "pair");
        topology.addSink("visits", visits, Serdes.String().serializer(), Serdes.String().serializer(), "pair");
        topology.addSink("minutes", minutes, Serdes.String().serializer(), Serdes.String().serializer(), "pair");
        return topology;
    }

    private StoreBuilder<?> store(String name, String stores) {
        KeyValueBytesStoreSupplier supplier = stores.equals("memory")
                ? Stores.inMemoryKeyValueStore(name)
                : Stores.persistentKeyValueStore(name);
        // The cache gathers changes on their way to RocksDB and to the changelog.
        return Stores.keyValueStoreBuilder(supplier, Serdes.String(), Serdes.ByteArray()).withCachingEnabled();
    }

    /** One task, that is one partition: venues are keyed to partitions, so that no repartitioning is needed. */
    private final class Pairing implements Processor<byte[], byte[], String, String> {
        private ProcessorContext<String, String> context;
        private KeyValueStore<String, byte[]> pairs;
        private KeyValueStore<String, byte[]> minutes;
        /** Rows to forward; an empty visit is one that is no more. */
        private final Map<String, String> changedVisits = new HashMap<>();
        private final Map<String, String> changedMinutes = new HashMap<>();

        @Override
        public void init(ProcessorContext<String, String> given) {
            context = given;
            pairs = given.getStateStore("pairs");
            minutes = given.getStateStore("minutes");
            given.schedule(Duration.ofSeconds(1), PunctuationType.WALL_CLOCK_TIME, this::forward);
        }

        @Override
        public void process(Record<byte[], byte[]> message) {
            began.compareAndSet(0, System.nanoTime());
            Scan scan = Scan.decode(message.value());
            if (scan == null) {
                refused.incrementAndGet();
            } else {
                take(scan);
            }
            // After the rows are noted: that nothing waits is only true once all are taken.
            taken.incrementAndGet();
        }

        private void take(Scan scan) {
            // An id has no `|`.
            String key = scan.venue() + '|' + scan.visitor();
            byte[] before = pairs.get(key);
            byte[] after = Pair.put(before, scan);
            if (after == null) {
                return;
            }
            pairs.put(key, after);
            boolean nothingWaits = changedVisits.isEmpty();
            List<Pair.Visit> old = Pair.fold(before);
            List<Pair.Visit> now = Pair.fold(after);
            Map<Long, int[]> moves = new HashMap<>();
            Set<Long> starts = new HashSet<>();
            for (Pair.Visit visit : now) {
                starts.add(visit.start());
                if (!old.contains(visit)) {
                    changedVisits.put(key + '|' + visit.start(), visit.left() + "|" + visit.ended() + '|' + visit.persons());
                    count(moves, visit, 1);
                }
            }
            for (Pair.Visit visit : old) {
                if (!now.contains(visit)) {
                    count(moves, visit, -1);
                    if (!starts.contains(visit.start())) {
                        changedVisits.put(key + '|' + visit.start(), "");
                    }
                }
            }
            moves.forEach((minute, change) -> {
                if (change[0] != 0 || change[1] != 0) {
                    move(scan.venue() + '|' + minute, change);
                }
            });
            if (nothingWaits && !changedVisits.isEmpty()) {
                waiting.incrementAndGet();
            }
        }

        private void count(Map<Long, int[]> moves, Pair.Visit visit, int sign) {
            moves.computeIfAbsent(visit.start() / MINUTE, minute -> new int[2])[0] += sign * visit.persons();
            moves.computeIfAbsent(visit.left() / MINUTE, minute -> new int[2])[1] += sign * visit.persons();
        }

        private void move(String key, int[] change) {
            byte[] stored = minutes.get(key);
            ByteBuffer counts = ByteBuffer.allocate(2 * Integer.BYTES);
            int arrivals = change[0] + (stored == null ? 0 : ByteBuffer.wrap(stored).getInt(0));
            int departures = change[1] + (stored == null ? 0 : ByteBuffer.wrap(stored).getInt(Integer.BYTES));
            minutes.put(key, counts.putInt(arrivals).putInt(departures).array());
            changedMinutes.put(key, arrivals + "|" + departures);
        }

        private void forward(long now) {
            if (changedVisits.isEmpty()) {
                return;
            }
            changedVisits.forEach((key, value) -> context.forward(new Record<>(key, value, now), "visits"));
            changedMinutes.forEach((key, value) -> context.forward(new Record<>(key, value, now), "minutes"));
            changedVisits.clear();
            changedMinutes.clear();
            waiting.decrementAndGet();
        }
    }
}

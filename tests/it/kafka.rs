//! The Kafka source with a real broker. Every byte is stored once and in order, whether it is the
//! source or the broker that stops and starts again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use strongroom_archive::Position;
use strongroom_live::kafka::{Assignor, KafkaOptions, KafkaSource, Mechanism, OnGap, Sasl, Security, Start};
use strongroom_live::testing::{Archive, Driver, SealPolicy};
use strongroom_live::{Secret, Source as _};

use crate::services::tansu::Tansu;

/// Maximum time of one step. The first rebalance of a group alone takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// Number of messages that are sent one at a time, to show that none waits for others.
const SINGLE_MESSAGES: usize = 5;
const UNDER_WAY_MAX: u64 = 64 << 20;

fn options(broker: &Tansu, topic: &str) -> KafkaOptions {
    options_at(&broker.address(), topic)
}

fn options_at(address: &str, topic: &str) -> KafkaOptions {
    KafkaOptions {
        name: "audit".to_owned(),
        cluster: "test".to_owned(),
        brokers: vec![address.to_owned()],
        topics: vec![topic.to_owned()],
        reading: Arc::default(),
        group: "strongroom".to_owned(),
        security: Security::Plaintext,
        ca_file: None,
        cert_file: None,
        key_file: None,
        start: Start::Earliest,
        on_gap: OnGap::Stop,
        assignor: Assignor::default(),
        // In a rebalance, this broker waits half of this time for other members of the group.
        session_timeout: Duration::from_secs(6),
    }
}

fn partition(topic: &str, number: i32) -> String {
    format!("kafka/tansu_cluster/{topic}/{number}")
}

/// A running source, with the driver it feeds.
struct Running {
    driver: Driver,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Running {
    fn start(options: KafkaOptions, archive: &Archive, policy: SealPolicy) -> Running {
        Running::with(options, archive, policy, UNDER_WAY_MAX)
    }

    fn with(options: KafkaOptions, archive: &Archive, policy: SealPolicy, under_way_max: u64) -> Running {
        let driver = Driver::start(archive, policy, under_way_max);
        let mut source = KafkaSource::new(options).expect("valid options");
        let feed = driver.feed.clone();
        let run = move || source.run(&feed).map_err(|error| error.to_string());
        let thread = std::thread::Builder::new().name("source".to_owned()).spawn(run).expect("a thread");
        Running { driver, thread: Some(thread) }
    }

    fn stop(mut self) -> Result<(), String> {
        self.driver.stop();
        self.thread.take().expect("the source is running").join().expect("the source does not panic")
    }

    fn trouble_with(&self, text: &str) -> String {
        wait_for(text, || self.driver.trouble().filter(|trouble| trouble.contains(text)))
    }
}

/// Waits until `look` returns something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}

/// Puts messages into a partition; `None` is a message without a value.
fn produce<'v>(broker: &Tansu, topic: &str, number: i32, values: impl IntoIterator<Item = Option<&'v [u8]>>) {
    produce_with(&broker.address(), topic, number, values, "zstd");
}

fn produce_with<'v>(
    address: &str,
    topic: &str,
    number: i32,
    values: impl IntoIterator<Item = Option<&'v [u8]>>,
    compression: &str,
) {
    produce_by(address, topic, number, values, |config| {
        config.set("compression.type", compression);
    });
}

fn produce_by<'v>(
    address: &str,
    topic: &str,
    number: i32,
    values: impl IntoIterator<Item = Option<&'v [u8]>>,
    set: impl FnOnce(&mut ClientConfig),
) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("message.max.bytes", "20000000").set("acks", "all");
    set(&mut config);
    let producer: BaseProducer = config.create().expect("a producer");
    let mut values = values.into_iter().peekable();
    while let Some(value) = values.next() {
        if values.peek().is_none() {
            // The last message is a batch by itself, because this broker takes the first message of
            // the last batch for the end of the log.
            producer.flush(PATIENCE).expect("all messages are acknowledged");
        }
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(number);
        record.payload = value;
        while let Err((_, again)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = again;
        }
    }
    producer.flush(PATIENCE).expect("all messages are acknowledged");
}

fn lines(of: &str, numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("{{\"of\":\"{of}\",\"number\":{number}}}").into_bytes()).collect()
}

fn values(lines: &[Vec<u8>]) -> impl Iterator<Item = Option<&[u8]>> {
    lines.iter().map(|line| Some(line.as_slice()))
}

/// Returns the bytes that the archive must have for these messages: each message and a newline.
fn stream(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect()
}

fn assert_sealed(archive: &Archive, partition: &str, bytes: &[u8]) {
    wait_until(&format!("{} bytes of {partition}", bytes.len()), || {
        archive.bytes(partition).len() >= bytes.len() || !archive.problems().is_empty()
    });
    assert_eq!(archive.problems(), Vec::<String>::new());
    assert!(archive.bytes(partition) == bytes, "{partition} has other bytes");
}

#[test]
fn every_message_comes_once_and_in_order() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 2);
    let logs = [lines("a", 0..20_000), lines("b", 0..300)];
    for (number, log) in (0..).zip(&logs) {
        produce(&broker, "audit", number, values(log));
    }
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    for (number, log) in (0..).zip(&logs) {
        assert_sealed(&archive, &partition("audit", number), &stream(log));
    }
    let chunks = running.driver.chunks();
    assert!(chunks.len() < 60, "a backlog travels in large chunks: {chunks:?}");

    // A single message does not wait for others. Several are sent, so that the test does not fail
    // merely because the machine is busy.
    let late = lines("late", 0..SINGLE_MESSAGES);
    let mut both = logs[1].clone();
    let mut least = Duration::MAX;
    for message in &late {
        produce(&broker, "audit", 1, values(std::slice::from_ref(message)));
        let produced = Instant::now();
        both.push(message.clone());
        assert_sealed(&archive, &partition("audit", 1), &stream(&both));
        least = least.min(produced.elapsed());
    }
    assert!(least < Duration::from_secs(2), "the fastest took {least:?}");
    wait_until("nothing waits at the broker", || running.driver.lag() == 0);
    assert_eq!(running.driver.trouble(), None);

    // Tools that watch the group see its progress, after a while.
    let watcher: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("group.id", "strongroom")
        .create()
        .expect("a consumer");
    wait_until("the group's offset", || {
        let mut list = TopicPartitionList::new();
        list.add_partition("audit", 1);
        let committed = watcher.committed_offsets(list, Duration::from_secs(5));
        committed
            .is_ok_and(|list| list.elements()[0].offset() == Offset::Offset(300 + SINGLE_MESSAGES as i64))
    });
    running.stop().expect("a stop is not a failure");
}

#[test]
fn a_run_goes_on_where_the_archive_ends() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    let log = lines("a", 0..120_000);
    produce(&broker, "audit", 0, values(&log));
    let name = partition("audit", 0);
    let whole = stream(&log);
    let archive = Archive::default();
    let mut runs = 0;
    // The source is stopped again and again while some chunks are in progress. Before most of the
    // stops, what it has read is sealed.
    while archive.bytes(&name).len() < whole.len() {
        let before = archive.bytes(&name).len();
        let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::OnRequest);
        let enough = (runs % 3 + 1) * 400_000;
        wait_until("chunks", || {
            let handed: usize = running.driver.chunks().iter().map(|(_, bytes)| bytes).sum();
            handed >= enough.min(whole.len() - before)
        });
        if runs % 4 != 1 {
            assert_eq!(running.driver.feed.seal_now(PATIENCE), Ok(true));
        }
        running.stop().expect("a stop is not a failure");
        runs += 1;
        assert!(runs < 40, "no progress");
    }
    assert_sealed(&archive, &name, &whole);
    assert_eq!(archive.fenced(), 0);
}

#[test]
fn two_members_share_and_hand_over() {
    for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
        let Some(broker) = Tansu::start() else { return };
        broker.create_topic("audit", 4);
        let archive = Archive::default();
        let options = KafkaOptions { assignor, ..options(&broker, "audit") };
        let first = Running::start(options.clone(), &archive, SealPolicy::OnRequest);
        let mut logs: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 4];
        let produce_some = |logs: &mut Vec<Vec<Vec<u8>>>| {
            for (number, log) in (0..).zip(logs) {
                let more = lines(&number.to_string(), log.len()..log.len() + 200);
                produce(&broker, "audit", number, values(&more));
                log.extend(more);
            }
        };
        let handed =
            |running: &Running| -> usize { running.driver.chunks().iter().map(|(_, bytes)| bytes).sum() };
        produce_some(&mut logs);
        wait_until("the first has read", || {
            handed(&first) == logs.iter().map(|log| stream(log).len()).sum::<usize>()
        });
        // The second source takes some partitions over from the first. Before that, what the first
        // has read of these partitions is sealed.
        let second = Running::start(options, &archive, SealPolicy::EveryChunk);
        wait_until("the second has read", || {
            produce_some(&mut logs);
            handed(&second) > 0
        });
        assert_eq!(first.driver.feed.seal_now(PATIENCE), Ok(true));
        // The first source is killed. What it had read and not sealed is read again by the second.
        produce_some(&mut logs);
        first.stop().expect("a stop is not a failure");
        produce_some(&mut logs);
        for (number, log) in (0..).zip(&logs) {
            assert_sealed(&archive, &partition("audit", number), &stream(log));
        }
        assert_eq!(archive.fenced(), 0, "no consumer sealed a partition of the other one");
        second.stop().expect("a stop is not a failure");
    }
}

#[test]
fn poison_travels_unchanged() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    let garbage: Vec<u8> = (0..70_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let large = vec![b'x'; 5 << 20];
    let messages: [Option<&[u8]>; 8] = [
        Some(b"{}"),
        None,
        Some(b""),
        Some(b"two\nlines"),
        Some(b"\n\r\n\0"),
        Some(&garbage),
        Some(&large),
        Some(b"last"),
    ];
    let mut expected = Vec::new();
    for compression in ["none", "gzip", "lz4", "zstd", "snappy"] {
        // Tansu accepts a batch of 5 MiB only if it can be compressed.
        produce_with(&broker.address(), "audit", 0, messages, compression);
        for message in messages {
            expected.extend_from_slice(message.unwrap_or_default());
            expected.push(b'\n');
        }
    }
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    assert_sealed(&archive, &partition("audit", 0), &expected);
    running.stop().expect("a stop is not a failure");
}

#[test]
fn a_full_pipeline_loses_neither_the_membership_nor_a_message() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 2);
    let logs = [lines("a", 0..150_000), lines("b", 0..150_000)];
    let archive = Archive::default();
    let running = Running::with(options(&broker, "audit"), &archive, SealPolicy::EveryChunk, 1 << 20);
    for (number, log) in (0..).zip(&logs) {
        produce(&broker, "audit", number, values(&log[..1_000]));
        assert_sealed(&archive, &partition("audit", number), &stream(&log[..1_000]));
    }
    running.driver.hold(true);
    for (number, log) in (0..).zip(&logs) {
        produce(&broker, "audit", number, values(&log[1_000..]));
    }
    // This is longer than the source waits before it pauses its partitions.
    std::thread::sleep(Duration::from_secs(9));
    assert!(archive.bytes_in_all() < 200_000, "the pipeline was held");
    running.driver.hold(false);
    for (number, log) in (0..).zip(&logs) {
        assert_sealed(&archive, &partition("audit", number), &stream(log));
    }
    running.stop().expect("a stop is not a failure");
}

#[test]
fn lost_messages_stop_the_source_unless_configured_otherwise() {
    let Some(mut broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    let name = partition("audit", 0);
    let old = lines("old", 0..50);
    produce(&broker, "audit", 0, values(&old));
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    assert_sealed(&archive, &name, &stream(&old));

    running.stop().expect("a stop is not a failure");

    broker.stop();
    broker.start_again();
    broker.create_topic("audit", 1);
    let new = lines("new", 0..3);
    produce(&broker, "audit", 0, values(&new));
    let lost = "audit[0]: the archive continues at offset 50, but the broker's log ends at 3: the topic was created \
                again, or has lost its end; to continue at offset 0 and accept the gap, set on_gap = \"continue\" and \
                restart";
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    assert_eq!(running.trouble_with("set on_gap"), lost);
    assert_eq!(archive.bytes(&name), stream(&old));
    running.stop().expect("a stop is not a failure");

    let go_on = KafkaOptions { on_gap: OnGap::Continue, ..options(&broker, "audit") };
    let running = Running::start(go_on, &archive, SealPolicy::EveryChunk);
    let both: Vec<Vec<u8>> = old.iter().chain(&new).cloned().collect();
    assert_sealed(&archive, &name, &stream(&both));
    assert_eq!(archive.positions()[&name].broker_offset, Some(3));
    running.stop().expect("a stop is not a failure");
}

/// The test commits all of its transactions, because this broker would also deliver the messages of
/// aborted ones.
#[test]
fn transaction_markers_are_skipped() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("transactional.id", "test")
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    let kept = lines("kept", 0..20);
    let put = |lines: &[Vec<u8>]| {
        producer.begin_transaction().expect("a transaction");
        for line in lines {
            let record = BaseRecord::<(), [u8]>::to("audit").partition(0).payload(line);
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
    };
    put(&kept[..10]);
    producer.commit_transaction(PATIENCE).expect("committed");
    put(&kept[10..]);
    producer.commit_transaction(PATIENCE).expect("committed");
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    assert_sealed(&archive, &partition("audit", 0), &stream(&kept));
    running.stop().expect("a stop is not a failure");
}

/// Returns lines of a kilobyte, to fill a log.
fn long_lines(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("{number:08} {}", "x".repeat(1_000)).into_bytes()).collect()
}

/// This test needs a broker that drops old messages. Tansu keeps everything, but librdkafka's own
/// mock of a broker keeps only 5 MiB of each partition.
#[test]
fn what_retention_took_is_counted() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).expect("a mock");
    let address = cluster.bootstrap_servers();
    cluster.create_topic("audit", 1, 1).expect("a topic");
    let log = long_lines(0..12_000);
    let archive = Archive::default();
    let stop = options_at(&address, "audit");
    produce_with(&address, "audit", 0, values(&log[..50]), "none");
    let running = Running::start(stop.clone(), &archive, SealPolicy::EveryChunk);
    wait_until("the first messages", || archive.bytes_in_all() == stream(&log[..50]).len());
    running.stop().expect("a stop is not a failure");
    let name = archive.positions().keys().next().expect("a partition").clone();

    produce_with(&address, "audit", 0, values(&log[50..]), "none");
    let running = Running::start(stop, &archive, SealPolicy::EveryChunk);
    let trouble = running.trouble_with("messages are lost");
    let first: usize = trouble
        .split("the broker's first is ")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .and_then(|first| first.parse().ok())
        .unwrap_or_else(|| panic!("{trouble}"));
    let lost = format!("audit[0]: {} messages are lost: the archive continues at offset 50, ", first - 50);
    assert!(trouble.starts_with(&lost), "{trouble}");
    assert_eq!(archive.bytes(&name), stream(&log[..50]));
    running.stop().expect("a stop is not a failure");

    let go_on = KafkaOptions { on_gap: OnGap::Continue, ..options_at(&address, "audit") };
    let running = Running::start(go_on, &archive, SealPolicy::EveryChunk);
    let rest: Vec<Vec<u8>> = log[..50].iter().chain(&log[first..]).cloned().collect();
    assert_sealed(&archive, &name, &stream(&rest));
    running.stop().expect("a stop is not a failure");
}

#[test]
fn what_retention_takes_from_a_slow_reader_is_seen() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).expect("a mock");
    let address = cluster.bootstrap_servers();
    cluster.create_topic("audit", 1, 1).expect("a topic");
    let log = long_lines(0..14_000);
    let archive = Archive::default();
    let running = Running::with(options_at(&address, "audit"), &archive, SealPolicy::EveryChunk, 1 << 20);
    produce_with(&address, "audit", 0, values(&log[..50]), "none");
    wait_until("the first messages", || archive.bytes_in_all() == stream(&log[..50]).len());
    running.driver.hold(true);
    produce_with(&address, "audit", 0, values(&log[50..4_000]), "none");
    // Long enough for the source to pause its partitions and to discard prefetched messages, which
    // takes some 6 s on an idle machine.
    std::thread::sleep(Duration::from_secs(20));
    produce_with(&address, "audit", 0, values(&log[4_000..]), "none");
    running.driver.hold(false);
    running.trouble_with("messages are lost");
    let sealed = archive.bytes(archive.positions().keys().next().expect("a partition"));
    let whole = stream(&log);
    assert!(
        sealed.len() < whole.len() && whole.starts_with(&sealed),
        "what is sealed is the beginning of the log, without gaps"
    );
    assert_eq!(archive.problems(), Vec::<String>::new());
    running.stop().expect("a stop is not a failure");
}

#[test]
fn a_new_partition_can_begin_with_the_next_message() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    let (old, new) = (lines("old", 0..10), lines("new", 0..10));
    produce(&broker, "audit", 0, values(&old));
    let archive = Archive::default();
    let latest = KafkaOptions { start: Start::Latest, ..options(&broker, "audit") };
    let running = Running::start(latest, &archive, SealPolicy::EveryChunk);
    // The time of the first delivery is unknown, so messages are sent until one arrives.
    wait_until("new messages", || {
        produce(&broker, "audit", 0, values(&new));
        std::thread::sleep(Duration::from_millis(300));
        !archive.bytes(&partition("audit", 0)).is_empty()
    });
    let sealed = archive.bytes(&partition("audit", 0));
    assert!(!sealed.windows(3).any(|three| three == b"old"), "no old message is read");
    let sent = stream(&new).repeat(400);
    assert!(
        sent.windows(sealed.len()).any(|piece| piece == sealed),
        "no message is missing after the first one that was read"
    );
    assert_eq!(archive.problems(), Vec::<String>::new());
    running.stop().expect("a stop is not a failure");
}

#[test]
fn a_topic_that_is_not_there_is_waited_for() {
    let Some(broker) = Tansu::start() else { return };
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    let trouble = running.trouble_with("topic audit");
    assert!(trouble.contains("create the topic, or correct its name"), "{trouble}");
    broker.create_topic("audit", 1);
    let log = lines("a", 0..10);
    produce(&broker, "audit", 0, values(&log));
    assert_sealed(&archive, &partition("audit", 0), &stream(&log));
    wait_until("all is well", || running.driver.trouble().is_none());
    running.stop().expect("a stop is not a failure");
}

#[test]
fn connections_that_break_in_the_middle_of_an_answer_lose_nothing() {
    let Some((broker, cuts)) = Tansu::behind_cuts() else { return };
    broker.create_topic("audit", 2);
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    let mut logs: [Vec<Vec<u8>>; 2] = Default::default();
    let wave = |logs: &mut [Vec<Vec<u8>>; 2]| {
        for (number, log) in (0..).zip(&mut *logs) {
            let more = long_lines(log.len()..log.len() + 500);
            produce(&broker, "audit", number, values(&more));
            log.extend(more);
        }
        for (number, log) in (0..).zip(&*logs) {
            assert_sealed(&archive, &partition("audit", number), &stream(log));
        }
    };
    // Each wave of messages is fetched at least once, so after a few waves every kind of cut has
    // been made.
    while cuts.counts().torn < 3 || cuts.counts().lost < 3 {
        assert!(logs[0].len() < 50_000, "{:?}", cuts.counts());
        wave(&mut logs);
    }
    // The broker goes away and comes back; our process is not restarted.
    cuts.away();
    running.trouble_with("Kafka");
    cuts.back();
    wave(&mut logs);
    wait_until("all is well", || running.driver.trouble().is_none());
    assert_eq!(archive.fenced(), 0);
    running.stop().expect("a stop is not a failure");
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let Some(mut broker) = Tansu::start() else { return };
    broker.stop();
    let archive = Archive::default();
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    let trouble = running.trouble_with("Kafka");
    assert!(
        trouble.contains(&broker.address()) && trouble.contains("check that the brokers are up"),
        "{trouble}"
    );
    broker.start_again();
    broker.create_topic("audit", 1);
    let log = lines("a", 0..10);
    produce(&broker, "audit", 0, values(&log));
    assert_sealed(&archive, &partition("audit", 0), &stream(&log));
    wait_until("all is well", || running.driver.trouble().is_none());

    // The broker no longer answers. The source must stop all the same, and soon.
    broker.stop();
    let begun = Instant::now();
    running.stop().expect("a stop is not a failure");
    assert!(begun.elapsed() < Duration::from_secs(45), "it took {:?}", begun.elapsed());
}

#[test]
fn a_position_without_a_broker_offset_is_not_guessed() {
    let Some(broker) = Tansu::start() else { return };
    broker.create_topic("audit", 1);
    produce(&broker, "audit", 0, values(&lines("a", 0..10)));
    let archive = Archive::default();
    let position = Position { next_offset: 9, records: 1, prefix_blake3: [1; 16], broker_offset: None };
    archive.set_position(&partition("audit", 0), position);
    let running = Running::start(options(&broker, "audit"), &archive, SealPolicy::EveryChunk);
    let trouble = running.trouble_with("audit[0]");
    assert!(trouble.contains("has no offset"), "{trouble}");
    assert_eq!(archive.bytes_in_all(), 0);
    running.stop().expect("a stop is not a failure");
}

fn tls_file(name: &str) -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name))
}

#[test]
fn certificates_are_verified() {
    let Some(broker) = Tansu::behind_tls() else { return };
    broker.create_topic("audit", 1);
    let ca = tls_file("ca.pem").expect("a path");
    let producer = |config: &mut ClientConfig| {
        config.set("security.protocol", "ssl").set("ssl.ca.location", ca.display().to_string());
    };
    let log = lines("a", 0..10);
    produce_by(&broker.address(), "audit", 0, values(&log), producer);
    let archive = Archive::default();
    let tls =
        KafkaOptions { security: Security::Tls, ca_file: tls_file("ca.pem"), ..options(&broker, "audit") };
    let running = Running::start(tls.clone(), &archive, SealPolicy::EveryChunk);
    assert_sealed(&archive, &partition("audit", 0), &stream(&log));
    running.stop().expect("a stop is not a failure");

    let trouble = |options: KafkaOptions| {
        let running = Running::start(options, &Archive::default(), SealPolicy::EveryChunk);
        let trouble = running.trouble_with("check");
        running.stop().expect("a stop is not a failure");
        trouble
    };
    let stranger = trouble(KafkaOptions { ca_file: tls_file("other-ca.pem"), ..tls.clone() });
    assert!(
        stranger.contains("certificate verify failed") && stranger.contains("check ca_file"),
        "{stranger}"
    );
    let nobody = trouble(KafkaOptions { ca_file: None, ..tls.clone() });
    assert!(nobody.contains("certificate verify failed"), "{nobody}");
    let no_tls = trouble(KafkaOptions { security: Security::Plaintext, ca_file: None, ..tls });
    assert!(no_tls.contains("whether they expect TLS"), "{no_tls}");
}

#[test]
fn a_wrong_password_is_reported_but_not_printed() {
    let Some(broker) = Tansu::that_knows_nobody() else { return };
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let sasl =
            Sasl { mechanism, username: "alice".to_owned(), password: Secret::new("hunter2".to_owned()) };
        let options = KafkaOptions { security: Security::SaslPlaintext(sasl), ..options(&broker, "audit") };
        assert!(!format!("{options:?}").contains("hunter2"));
        let running = Running::start(options, &Archive::default(), SealPolicy::EveryChunk);
        let trouble = running.trouble_with("check mechanism, username and password");
        assert!(!trouble.contains("hunter2"), "{trouble}");
        running.stop().expect("a stop is not a failure");
    }
}

/// Two daemons in one group share one partition. The daemon without the partition is not reported
/// as healthy, and raises no alert about silence. The other one is healthy, and raises the alert
/// when no message arrives any more.
#[test]
fn a_spare_member_of_a_group_is_neither_silent_nor_well() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).expect("a mock");
    let address = cluster.bootstrap_servers();
    cluster.create_topic("audit", 1, 1).expect("a topic");
    let start = |of: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let rest = format!(
            "[seal]\ninterval = '200ms'\n[alerts]\nstdout = false\nfile = '{}'\n[[kafka]]\nname = 'topic'\n\
             cluster = 'test'\nbrokers = ['{address}']\ntopics = ['audit']\ngroup = 'members'\nsilence = '4s'\n\
             session_timeout = '6s'\n",
            folder.path().join("alerts.jsonl").display()
        );
        let archive = folder.path().join(of).display().to_string();
        let config = crate::daemon::config(folder.path(), &archive, &rest);
        (crate::daemon::Daemon::start(&config), folder)
    };
    let mut members = [start("one"), start("two")];
    let of = |name: &str| format!("{name}{{source=\"topic\"}}");
    let partitions = of("source_partitions");
    wait_until("one has the partition", || {
        let mut counts = members.each_mut().map(|(daemon, _)| daemon.metric(&partitions));
        counts.sort_by(f64::total_cmp);
        counts == [0.0, 1.0]
    });
    if members[0].0.metric(&partitions) == 0.0 {
        members.swap(0, 1);
    }
    let log = crate::run::log(40, 120);
    let events: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let told = |folder: &tempfile::TempDir| {
        std::fs::read_to_string(folder.path().join("alerts.jsonl"))
            .unwrap_or_default()
            .contains("source-silent")
    };
    for event in events.iter().take(20) {
        produce_with(&address, "audit", 0, [Some(*event)], "none");
        std::thread::sleep(Duration::from_millis(500));
    }
    let [(busy, busy_folder), (spare, spare_folder)] = &mut members;
    assert_eq!((busy.metric(&partitions), spare.metric(&partitions)), (1.0, 0.0));
    for name in ["source_well", "source_lag", "source_silent_seconds"] {
        assert!(spare.metric(&of(name)).is_nan(), "{name}");
        assert!(!busy.metric(&of(name)).is_nan(), "{name}");
    }
    assert!(busy.metric(&of("source_well")) == 1.0 && busy.metric(&of("source_silent_seconds")) < 4.0);
    assert!(!told(spare_folder) && !told(busy_folder), "{}", spare.log());
    // No message arrives any more.
    wait_until("the daemon with the partition reports the silence", || told(busy_folder));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!told(spare_folder), "{}", spare.log());
}

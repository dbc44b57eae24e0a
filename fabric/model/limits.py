"""Every bound of the fabric, with its unit in the name. Policy may tighten, never widen."""

# One sealed block
BLOCK_BYTES_MAX = 900_000
"""Plaintext of one block before padding, in bytes; below Kafka's 1 MiB record limit."""
BLOCK_CHANGES_MAX = 10_000
BLOCK_VALUES_MAX = 250_000
"""Values in the arrays of one block's columns, and names of absent columns: a decoder makes each
in up to 1 us, without a pause. An envelope's worth of numbers that differ is fewer."""
BLOCK_NULLS_MAX = 250_000
"""Places of nulls in one block, of all columns: one is a byte before compression, and costs a
reader a number in a list and its check, 0.3 us."""
ENVELOPE_BYTES_MAX = 1_000_000
HEADER_BYTES_MAX = 4_096
EXPANSION_RATIO_MAX = 200
"""Decompressed bytes of a block per compressed byte; a bomb ends here."""
DECOMPRESSED_BYTES_MAX = 16 * 1024 * 1024
QUICK_BYTES_MAX = 32 * 1024
QUICK_RUNS_MAX = 128
QUICK_NULLS_MAX = 4_000
QUICK_VALUES_MAX = 1_000
"""What a block's plaintext may have that is decoded on an event loop: some 4 ms in all, if it has
as much of each as it may; the values as BLOCK_VALUES_MAX counts them."""
PADDING_BYTES_MIN = 4_096
SIGNATURES_MAX = 8
"""Of one statement: an attestation request has one by every signing key and the TLS key."""
CBOR_DEPTH_MAX = 8
CBOR_ITEMS_DEFAULT = 64
"""Values in one CBOR structure whose reader expects few: to decode one costs 1 us and more."""
CBOR_ITEMS_MAX = 50_000
"""Values in any one CBOR structure: the record of a start or grant, of 2,000 recipients."""
HEADER_ITEMS_MAX = 128
"""Values in one protected bucket; an envelope's has about fifty."""
CARRIER_ITEMS_MAX = 1_200
"""Values in a result, a notice, or a request for one: RESULT_HEADS_MAX heads and the rest."""

# Streams and epochs
HEADS_REMEMBERED = 64
"""Hashes of accepted envelopes a reader keeps per stream, to tell a duplicate from a fork."""
SUPERSEDED_REMEMBERED = 64
EPOCH_BLOCKS_MAX = 1_000_000
EPOCH_AGE_S_MAX = 24 * 3600
RECIPIENTS_MAX = 2_000
"""Recipients of one start or grant: with the longest names they and the heads fit a record."""
WRAPS_PER_RECORD_MAX = 600
"""Wraps in one record; a start or grant of more recipients is written as several records."""
EPOCH_HEADS_MAX = 1_000
"""Predecessor heads that one epoch start names: streams of one topic."""
RESEAL_INTERVAL_S = 10
SILENCE_INTERVAL_S = 10
SILENCES_MISSED_MAX = 3
CUSTODY_AFTER_S = 60.0
"""How long a sender is not attested, or may not grant, before a custodian acts for it."""

# Time
CLOCK_SKEW_S_MAX = 30
TIMESTAMP_VALID_S_MAX = 30 * 24 * 3600
"""How long one of the authority's timestamps of the policy may hold."""
DELIVERY_S_DEFAULT = 300
RESULT_LIFETIME_S_DEFAULT = 600
HEARTBEAT_INTERVAL_S = 1.0
HEARTBEATS_MISSED_MAX = 2
TICK_ASK_S = 3.0
"""An agent without a whole view for so long asks the authority over HTTPS, seconds."""
RESULT_WAIT_S = 10.0
"""How long a reader waits for a result that nobody has heard of, seconds."""
TICK_GRANTS_S_MAX = 30.0
"""After so long without one it gives no new grants and opens no new epochs, seconds."""
POLICY_REFRESH_S = 30

# Policy
POLICY_FILES_MAX = 20_000
POLICY_FILE_BYTES_MAX = 1024 * 1024
POLICY_BYTES_MAX = 64 * 1024 * 1024
POLICY_ROLES_MAX = 2_000
"""Roles that the policy's signed repository delegates to: one for each agency, and two."""
POLICY_METADATA_BYTES_MAX = 4 * 1024 * 1024
"""One role's metadata: paths and hashes of POLICY_FILES_MAX files."""
POLICY_TIMESTAMP_BYTES_MAX = 16 * 1024
POLICY_ROOTS_MAX = 64
"""Root rotations that one refresh follows; the next refresh goes on."""
POLICY_REFRESH_S_MAX = 300.0
"""How long one look at the policy repository may take in all, seconds."""
POLICY_FIRST_S_MAX = 30.0
"""How long a process waits at its start for a policy that nobody serves yet, seconds."""
POLICY_REQUESTS_PER_S_MAX = 200
POLICY_REQUESTS_BURST_MAX = 4_000
"""Requests of one address to the policy repository: a first load asks for every file."""

# Names
AGENCY_CHARS_MAX = 35
NAME_CHARS_MAX = 63
NAMES_REMEMBERED = 1_024
"""Parsed names and labels of each kind that are kept: every header repeats the same few."""

# Control records and services
CONTROL_RECORD_BYTES_MAX = 900_000
REQUEST_BYTES_MAX = 256 * 1024
"""Body of one HTTPS request to the authority."""
NONCE_BYTES = 32
EVENT_LOG_BYTES_MAX = 160 * 1024
"""Firmware's log of one boot; real ones have 20 to 100 KiB."""
EVENT_LOG_EVENTS_MAX = 4_096
CHALLENGE_LIFETIME_S = 30
CHALLENGES_MAX = 10_000
"""Unanswered ones of all hosts that showed their certificate; as many again of everybody else."""
PENDING_PER_HOST_MAX = 256
"""Unanswered challenges (or enrolments) that name one host."""
PENDING_PER_ASKER_MAX = 4
"""Those of one client for one host: it needs one, and another after a lost answer."""
ENROLMENTS_PENDING_MAX = 1_000
ENROLMENT_LIFETIME_S = 120
"""Time a TPM has to activate a credential, seconds; slow ones need several."""
PENDING_PER_PEER_MAX = 256
"""Unanswered challenges (or enrolments) of one client identity or address."""
PEERS_REMEMBERED_MAX = 10_000
"""Clients whose request rate the authority keeps in mind."""
REQUESTS_PER_S_MAX = 50
REQUESTS_BURST_MAX = 200
"""Requests of one client identity or address to the authority."""
REQUEST_BYTES_EACH = 16 * 1024
"""Bytes of a body that count as one request more, of an address without a certificate."""
PUBLISH_S_MAX = 10.0
"""How long a request to the authority waits for the gateway, seconds; below REQUEST_S_MAX."""
HTTPS_CONNECTIONS_MAX = 400
"""Connections of the authority. One holds 0.3 MiB before it says a word; requests are short."""
SIDE_CONNECTIONS_MAX = 128
"""Connections of a gateway's refusal log."""
PAGE_CONNECTIONS_MAX = 128
"""Connections to the pages of a process from beyond its machine."""
CONNECTION_S_MAX = 60.0
"""Life of one connection over HTTPS: handshake, requests, answers; seconds."""
ATTEST_INTERVAL_S_MIN = 1.0
"""Between two results of one host, seconds; no agent renews sooner than this after an answer."""
BOUND_KEYS_MAX = 12
"""Keys that one quote binds and one result carries."""
RESULT_HEADS_MAX = 1_000
"""Heads that a result carries: one per stream its host fills."""
HEADS_SPARE = 64
"""Heads of one result beyond the streams of its host: a policy may have taken some away lately.
Of more, each has its turn, result by result."""
RESULT_BYTES_MAX = 64 * 1024
MEMBER_BYTES_MAX = 64 * 1024
"""One record of the members topic; a notice carries as many heads as a result."""
HOSTS_MAX = 10_000
NOTICES_MAX = 100_000
"""Notices kept in a view of the members; they are needed as long as the data."""
NOTICES_PER_ANSWER_MAX = 64
NOTICES_ANSWER_ITEMS_MAX = 256
"""Values in such an answer: each record is an array of two, and a tick comes with them."""
NOTICES_ANSWER_BYTES_MAX = 128 * 1024
"""Notices in one answer of the authority over HTTPS; below REQUEST_BYTES_MAX with its tick."""
ANCHORS_MAX = 500_000
"""Carried heads that a view of the members keeps; who has most loses its own oldest."""
ANCHOR_WINDOW = 100_000
"""Envelopes of one partition that a reader looks ahead for an anchor: 64 bytes each."""
KEYS_PARSED_MAX = 2_048
"""Public keys kept parsed, 8 KiB each for ML-DSA-65: the last used, of all that are known."""
HPKE_KEYS_JUDGED_MAX = 20_000
"""HPKE keys of which is remembered whether they can be wrapped to: two of each of HOSTS_MAX."""
RESULTS_KEPT_MAX = 100_000
"""Results kept in a view of the members; who has most loses its own oldest. A missing one is
`wait`, never trust."""
RESULT_KEYS_KIB_MAX = 256 * 1024
"""Of the keys of those, each counted once for its host, in KiB begun; who has most loses results.
The keys of one result are 6 KiB with a hybrid suite and 14 at most: HOSTS_MAX hosts keep theirs."""

# Gateway
FRAME_BYTES_MAX = 8 * 1024 * 1024
CONNECTIONS_MAX = 2_000
CONNECTIONS_PER_IDENTITY_MAX = 64
HANDSHAKES_MAX = 256
"""Connections in their handshake; one more ends the oldest one of the address that has most."""
HANDSHAKES_PER_ADDRESS_MAX = HANDSHAKES_MAX // 2
"""Those of one address (or IPv6 /64); one more ends its own oldest one. Many hosts may stand
behind one address, and all of them come back at once when a gateway starts."""
HANDSHAKE_S_MAX = 10.0
FRAME_S_MAX = 30.0
IDLE_S_MAX = 600.0
REQUESTS_IN_FLIGHT_MAX = 16
"""Unanswered requests of one connection; more are not read."""
REQUESTS_PER_IDENTITY_MAX = 256
BYTES_PER_IDENTITY_MAX = 64 * 1024 * 1024
"""Bytes of unanswered requests of one identity; more are not read."""
PRODUCER_IDS_PER_IDENTITY_MAX = 5_000
"""Producer ids, times the partitions that each wrote to, of one identity within a day."""
PARTITIONS_PER_REQUEST_MAX = 1_000
ANSWER_ITEMS_MAX = 200_000
"""Items of all arrays in one answer of a broker: nodes, topics, partitions, replicas."""
RECORD_ERRORS_MAX = 10_000
"""Records that a broker names as bad in one partition of an answer."""
TAGS_MAX = 64
"""Tagged fields in one place of a message; Kafka has a handful."""
LEADERS_REMEMBERED = 200_000
"""Partitions whose leaders a gateway knows; a broker may name any number in its answers."""
BATCH_RECORDS_MAX = 20_000
"""Twice what librdkafka puts into a batch: a batch is judged in one go, 5 us a record."""
COMPRESSED_BYTES_MAX = 1024 * 1024
"""Of a batch's records. No data topic takes a longer batch, and small blocks of either codec
make a decompressor build tables, 100 ns a byte, whatever comes out."""
RECORD_HEADERS_MAX = 16
BATCH_HEADERS_MAX = 60_000
SIGNED_RECORDS_MAX = 256
"""Envelopes or control records in one batch: each costs a signature check."""
REPLAYS_REMEMBERED = 100_000
"""Last envelopes, per sender, epoch and partition, that one gateway remembers."""
REFUSALS_REMEMBERED = 100
"""Of one identity, by one gateway."""
REFUSED_IDENTITIES_MAX = 1_000
"""Identities whose refusals a gateway remembers."""
JUDGED_BYTES_MIN = 16 * 1024
"""Bytes of a request that a gateway judges before others have their turn, one batch at least."""
OPEN_RECORD_BYTES_MAX = 256 * 1024
OPEN_VALUES_MAX = BLOCK_VALUES_MAX
"""Values in row and key of one open record, and names of absent columns; a reader decodes at most
as many and one record's more at a time."""

# Agent
QUEUE_RUNS_MAX = 64
QUEUE_BYTES_MAX = 8 * 1024 * 1024
RETRY_S_MIN = 0.1
RETRY_S_MAX = 10.0
STOP_S_MAX = 20.0
REQUEST_S_MAX = 20.0
"""Deadline of any one request to a peer, in seconds."""
PARKED_KEYS_MAX = 100_000

# Audit and receipts
AUDIT_FIELDS_MAX = 32
AUDIT_TEXT_CHARS_MAX = 500
AUDIT_LINE_BYTES_MAX = 256 * 1024
"""One line: 32 fields of 500 characters, each escaped as at most twelve bytes."""
AUDIT_FILE_BYTES_DEFAULT = 64 * 1024 * 1024
AUDIT_FILES_DEFAULT = 64
"""Files of one audit log; the oldest is deleted when there would be one more."""
AUDIT_RESERVE_BYTES = 16 * 1024 * 1024
"""Room on its disk that an audit log leaves to what a process needs to go on."""
AUDIT_HEAD_S_DEFAULT = 30.0
AUDIT_REFUSALS_REMEMBERED = 1_000
"""Kinds of refusals that a gateway, or the authority, counts apart between two audit lines."""
RECEIPT_BLOCKS_MAX = 1_000
"""Envelopes that one receipt names."""
RECEIPT_ITEMS_MAX = 4 * RECEIPT_BLOCKS_MAX + 64
"""Values in one receipt: each block is an array of three."""
RECEIPT_BYTES_MAX = 128 * 1024
RECEIPT_INTERVAL_S_DEFAULT = 1.0
RECEIPT_RETRY_S_MAX = 60.0
"""How long one receipt is tried, seconds; then it is counted as lost."""

-- The journal of a host. The same SQL runs on SQLite and on PostgreSQL, where `blob` is a domain over `bytea` that the host
-- creates first. Amounts are 16 bytes, big-endian, so that they sort as numbers; digests and addresses are the bytes that the
-- chain has; lanes are 64-bit numbers without a sign, kept as signed ones with the same bits.

-- Writer: the host (books/journal.rs). A channel's digest is its name everywhere else; claims need its members.
create table channel (
    channel_id     blob   not null primary key,
    payer          blob   not null,
    host           blob   not null,
    token          blob   not null,
    withdraw_delay bigint not null check (withdraw_delay >= 0),
    salt           blob   not null
);

-- Writer: the host (books/journal.rs), which answers "finished" only after the row is committed.
-- One row a request: the statement that the lease key signed, and the voucher that it was served under.
create table statement (
    digest             blob     not null primary key,
    answer_id          text     not null,
    lease_id           bigint   not null,
    -- 32 zero bytes: a customer who is billed in money.
    channel_id         blob     not null,
    customer_id        text,
    lane               bigint   not null,
    -- Number of the request on its lane, from 1.
    sequence           bigint   not null check (sequence >= 1),
    prompt_before      bigint   not null check (prompt_before >= 0),
    cached_before      bigint   not null check (cached_before >= 0),
    completion_before  bigint   not null check (completion_before >= 0),
    prompt_tokens      bigint   not null check (prompt_tokens >= 0),
    cached_tokens      bigint   not null check (cached_tokens between 0 and prompt_tokens),
    completion_tokens  bigint   not null check (completion_tokens >= 0),
    charge             blob     not null,
    -- What the lane has cost since it was opened, this request included.
    lane_cost          blob     not null,
    request_hash       blob     not null,
    response_hash      blob     not null,
    started_ms         bigint   not null,
    ended_ms           bigint   not null,
    finish_reason      smallint not null,
    execution          blob,
    previous           blob,
    signature          blob     not null,
    -- The epoch in which the request ended.
    epoch              bigint   not null,
    -- The voucher: its counts are those before the request, its head is `previous`. Without one: billed in money.
    voucher_ceiling    blob,
    voucher_expires_at bigint,
    voucher_signature  blob,
    -- Who signed the voucher: the payer or a session key.
    voucher_signer     blob,

    constraint statement_answer_id_key unique (answer_id),
    -- No request of a lane is stated twice, whatever the process believes about it.
    constraint statement_lane_key unique (lease_id, channel_id, lane, sequence)
);

create index statement_lease_epoch on statement (lease_id, epoch);

-- Writer: the host (books/journal.rs), together with the statement. Where a lane stands: its newest statement.
create table lane_head (
    channel_id  blob   not null,
    lease_id    bigint not null,
    lane        bigint not null,
    customer_id text,
    sequence    bigint not null,

    constraint lane_head_key primary key (channel_id, lease_id, lane)
);

create index lane_head_lease on lane_head (lease_id);
create index lane_head_customer on lane_head (customer_id);

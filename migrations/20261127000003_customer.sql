-- Writer: `hallmark customer`. Who pays the host in money: an API key, which is kept as its digest only.
create table customer (
    customer_id         text   not null primary key,
    -- keccak256 of the key: it has 256 random bits, so nothing slower is needed.
    key_digest          blob   not null,
    -- The customer's lane on the leases' channel 0.
    lane                bigint not null,
    -- The most that may be charged in all, in the payment token's smallest unit; none: no limit.
    budget              blob,
    requests_per_minute bigint,
    created_at_s        bigint not null,
    revoked_at_s        bigint,

    constraint customer_key_digest_key unique (key_digest),
    constraint customer_lane_key unique (lane)
);

-- Writer: the host, in the transaction that makes the statement durable (books/journal.rs); settlement forgets old rows.
-- Answers that were asked for with an Idempotency-Key: who asks again with the same key gets the same answer and statement.
create table kept_answer (
    -- Digest of the channel, or of the customer's name.
    owner         blob   not null,
    key           text   not null,
    -- Of the request's body: another request with the same key is a mistake of the client.
    body_hash     blob   not null,
    answer        text   not null,
    created_at_s  bigint not null,

    constraint kept_answer_key primary key (owner, key)
);

create index kept_answer_created on kept_answer (created_at_s);

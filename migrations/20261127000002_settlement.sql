-- Writer: the host (settlement/reports.rs). A report is written down before it is sent, with the statements that it is over, so
-- that it is sent again as it was and its leaves are known when somebody asks for a proof.
create table report (
    lease_id          bigint not null,
    -- Its place among the lease's reports on the chain, from 0.
    position          bigint not null,
    epoch             bigint not null,
    digest            blob   not null,
    root              blob,
    requests          bigint not null,
    prompt_tokens     bigint not null,
    cached_tokens     bigint not null,
    completion_tokens bigint not null,
    charge            blob   not null,
    previous          blob,
    -- Block that holds it, once it is in one.
    block             bigint,
    -- Block in which the royalty on what customers used who are billed in money was paid (settlement/royalty.rs).
    royalty_block     bigint,

    constraint report_key primary key (lease_id, position)
);

-- Writer: the host (settlement/reports.rs). Which report a statement is in. Not a column of `statement`, which has another writer.
create table reported (
    digest   blob   not null primary key,
    lease_id bigint not null,
    position bigint not null
);

create index reported_report on reported (lease_id, position);

-- Writer: the host (settlement/claims.rs). What the chain has paid for a lane, as the newest claim that was mined says.
create table claimed (
    channel_id      blob   not null,
    lane            bigint not null,
    lease_id        bigint not null,
    requests        bigint not null,
    -- Cost of the lane so far.
    cost            blob   not null,
    -- What the host, the creator's side and the validators got of it, over all claims of the lane.
    host_share      blob   not null,
    royalty         blob   not null,
    validator_share blob   not null,
    transaction_id  blob   not null,
    block           bigint not null,
    claimed_at_s    bigint not null,

    constraint claimed_key primary key (channel_id, lane)
);

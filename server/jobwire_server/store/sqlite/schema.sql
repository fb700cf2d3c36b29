-- The whole store: one file, one writer. Times and durations are microseconds; text is text, never JSON columns (they
-- turn '007' into 7); STRICT, so that a wrong type is refused when it is written, not met when it is read.

-- A job is a row with (queue, state, score); its other small columns carry the names of the fields of domain.job.Job.
-- Whatever may be large stands in tables of its own, so that a renewal of a job with a payload of 256 KiB rewrites
-- half a kilobyte.
CREATE TABLE job (
    number             INTEGER PRIMARY KEY,  -- joins the tables beside this one; never leaves the store
    id                 TEXT NOT NULL UNIQUE,
    digest             BLOB NOT NULL,        -- of the create request: what makes a repeated create the same create
    queue              TEXT NOT NULL,
    type               TEXT NOT NULL,
    user_id            TEXT NOT NULL,
    priority           INTEGER NOT NULL,
    retry              TEXT,                 -- codec.py; NULL = the default
    execution_timeout  INTEGER,
    retention          INTEGER,
    schedule_time      INTEGER,
    expire_time        INTEGER,
    webhook_events     INTEGER NOT NULL DEFAULT 0,  -- domain.webhook.EVENTS
    -- Not by IN, which takes half a microsecond at each write; the commonest first.
    state              TEXT NOT NULL CHECK (
                           state = 'queued' OR state = 'in_progress' OR state = 'completed' OR state = 'scheduled'
                           OR state = 'failed' OR state = 'canceled' OR state = 'expired'),
    score              INTEGER NOT NULL,     -- due time, rank, deadline or purge time, by state
    version            INTEGER NOT NULL DEFAULT 1,
    revision           INTEGER NOT NULL DEFAULT 1,
    last_operation     BLOB NOT NULL DEFAULT x'',
    create_time        INTEGER NOT NULL,
    update_time        INTEGER NOT NULL,
    queue_time         INTEGER,
    start_time         INTEGER,
    finish_time        INTEGER,
    attempt            INTEGER NOT NULL DEFAULT 0,
    retry_count        INTEGER NOT NULL DEFAULT 0,
    interruption_count INTEGER NOT NULL DEFAULT 0,
    release_count      INTEGER NOT NULL DEFAULT 0,
    return_count       INTEGER NOT NULL DEFAULT 0,
    token              BLOB,                 -- a digest: who reads the file cannot settle anybody's job
    fence              INTEGER NOT NULL DEFAULT 0,
    worker_id          TEXT NOT NULL DEFAULT '',
    claim_time         INTEGER,
    acknowledged       INTEGER NOT NULL DEFAULT 0,
    lease_duration     INTEGER NOT NULL DEFAULT 0,
    lease_expire_time  INTEGER,
    limit_time         INTEGER,
    outcome            TEXT,
    end_time           INTEGER,
    progress           TEXT,                 -- codec.py
    cancel_requested   INTEGER NOT NULL DEFAULT 0,
    cancel_reason      TEXT NOT NULL DEFAULT '',
    result             BLOB                  -- last: hardly anything is written to a job after it
) STRICT;

-- The state index: every timer and the order of every queue is "the head of this index". With the id in it, jobs of
-- one rank come in the order of their ids, as they do on the other engine.
CREATE INDEX job_by_state ON job (queue, state, score, id);

-- Waiting jobs that have an expire_time, and only those: whoever uses none pays nothing.
CREATE INDEX job_by_expiry ON job (expire_time)
    WHERE expire_time IS NOT NULL AND start_time IS NULL AND state IN ('scheduled', 'queued');

-- A user's jobs, for listings newest first. Jobs of nobody cost nothing.
CREATE INDEX job_by_user ON job (user_id, create_time, id) WHERE user_id != '';

CREATE TABLE submission (
    number  INTEGER PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

-- The last error and the finished attempts; a job that ends well at its first attempt has no row here.
CREATE TABLE detail (
    number  INTEGER PRIMARY KEY,
    error   TEXT,                            -- codec.py
    history TEXT NOT NULL                    -- codec.py
) STRICT;

-- However a job goes, its large parts go with it.
CREATE TRIGGER job_removed AFTER DELETE ON job BEGIN
    DELETE FROM submission WHERE number = old.number;
    DELETE FROM detail WHERE number = old.number;
END;

-- A queue exists from its first job or setting on, so that sweeps and listings can go from queue to queue and seek in
-- the state index.
CREATE TABLE queue (
    name            TEXT PRIMARY KEY,
    paused          INTEGER NOT NULL,
    ageing          INTEGER NOT NULL,
    retention       INTEGER,
    max_in_flight   INTEGER,
    last_queue_time INTEGER NOT NULL,
    create_time     INTEGER NOT NULL,
    update_time     INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    tallied_at      INTEGER NOT NULL,        -- when the tally last changed
    created         INTEGER NOT NULL,        -- from here on domain.activity.Tally, in its order
    claimed         INTEGER NOT NULL,
    completed       INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    retried         INTEGER NOT NULL,
    interrupted     INTEGER NOT NULL,
    run_time        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Marks: a queue's tally as it was when the first event of a step of time happened. A ring: later steps take the slots
-- of those before.
CREATE TABLE mark (
    queue       TEXT NOT NULL,
    step        INTEGER NOT NULL,            -- length
    slot        INTEGER NOT NULL,
    number      INTEGER NOT NULL,            -- of the step, counted from 1970
    created     INTEGER NOT NULL,
    claimed     INTEGER NOT NULL,
    completed   INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    retried     INTEGER NOT NULL,
    interrupted INTEGER NOT NULL,
    run_time    INTEGER NOT NULL,
    PRIMARY KEY (queue, step, slot)
) STRICT, WITHOUT ROWID;

-- Changes in the transaction that moves the jobs: counting a million rows takes 45 ms.
CREATE TABLE queue_count (
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;

-- Request ids, remembered whatever became of the job.
CREATE TABLE request (
    key         BLOB PRIMARY KEY,
    job_id      TEXT NOT NULL,
    digest      BLOB NOT NULL,
    expire_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX request_by_expiry ON request (expire_time);

CREATE TABLE worker (
    id             TEXT PRIMARY KEY,
    session        INTEGER NOT NULL,        -- the highest that came: claims of a lower one are superseded
    register_time  INTEGER NOT NULL,
    last_beat      INTEGER NOT NULL,
    last_seen      INTEGER NOT NULL DEFAULT 0, -- when a server last had a stream of it open
    directive      TEXT NOT NULL,           -- domain.worker.Directive
    returns        INTEGER NOT NULL,        -- deliveries in a row that came back unacknowledged
    returned_at    INTEGER NOT NULL,        -- when the last one did
    returned_claim INTEGER NOT NULL,        -- when that one was claimed: what came in one claim counts once
    silent         INTEGER NOT NULL,        -- a delivery ran out, and it has not been heard since
    held           INTEGER NOT NULL,        -- its leases: the credit used; an index of them would cost each life two steps
    host           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    runtime        TEXT NOT NULL,
    version        TEXT NOT NULL,
    labels         TEXT NOT NULL,           -- codec.py
    queues         TEXT NOT NULL,           -- codec.py
    max_in_flight  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- At its head stand those that have not been heard of for longest.
CREATE INDEX worker_by_sign ON worker (max(last_beat, last_seen));

-- create_time: of the store. filled_from: while it is being filled from another store, and no server may open it.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

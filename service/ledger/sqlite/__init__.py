"""The ledger in one SQLite file: durable, and shared by the processes of one host.

Theory of operation
-------------------
**Threads.** Each process has one writer thread with one connection (`writer`). The event loop puts
operations into its queue as soon as it has nothing else to do, at the latest after 2 ms: a busy loop is
about to submit more of them. The thread takes all that have queued up, at most 256, and runs them in one
transaction, with one statement for all claims and one for all outcomes (`bulk`). The operations that arrive
during its commit share the next transaction. A caller gets its result after the commit. `find` and `rows`
read over read-only connections of their own, in other threads: in WAL mode a reader and the writer do not
wait for each other.

**Durability.** The journal is a write-ahead log with synchronous=FULL: COMMIT returns after an fsync of the
log (https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous). So a claim survives
kill -9 and power loss before its request is sent. A transaction that has only outcomes that may be late
(`Ending.may_be_late`) is committed with synchronous=NORMAL, without an fsync: it survives kill -9, and
becomes durable with the next transaction of any other kind, or with one that writes nothing new, 50 ms
later. The log is recovered up to a commit, so a power loss undoes the last such outcomes, and nothing
before them (ADR 9). Checkpoints copy the log into the main file later. If one
operation of a batch fails by its own fault, the transaction is rolled back, and each operation is run again
in its own transaction. If the file fails, every operation of the batch raises LedgerUnavailable, and its
commit may be durable or not.

**Several processes.** A writer takes the ledger's write lock before its transaction, and releases it after
the commit and the checkpoint that may follow it (see `write_lock`). So claims of several workers are
decided one after the other, in order of arrival, and each commit includes what arrived during the wait. A
worker waits 3 s for those that came first, and 3 s for the one that writes. SQLite's own lock (BEGIN
IMMEDIATE) is free then, unless another program writes: it is waited for at most 500 ms.

**A crash** leaves a log that the next process to open the file recovers:

    before COMMIT returns    the whole transaction or nothing of it, and no caller got a result
    after COMMIT             the whole transaction; a claim whose grant reached no caller becomes in doubt
    at any time              the dirty flag (see `dirty_flag`), so that a copy without its log is noticed

**A full disk.** Space for outcomes is kept in a file (see `ballast`): while it is given up, claims are
refused, and outcomes are still written.

A claim whose caller was cancelled while it was queued is skipped, or undone if it was granted.

**A file that was deleted or replaced.** SQLite would continue to commit to the unlinked file without an
error. So the inodes of the database, of its log and of its shared memory are compared before and after each
transaction with those at the time of opening. If they differ, the commit is lost: its operations raise
LedgerUnavailable, as do all later ones, until the same files are at the path again.
"""

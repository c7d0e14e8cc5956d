"""The ledger in a PostgreSQL database: durable, and shared by gateways on many hosts.

Theory of operation
-------------------
**One round trip.** Each operation is one statement that calls one function of the schema (`schema_1.sql`),
and so one transaction. `alipayhk_claim` grants a claim that is new and meets nothing at its linkage. For
every other claim it returns what decides the answer, and `rules` decides, as for every level. If the answer
is a grant (the same content again, a request in doubt), a second call writes it unless something changed.

**Exclusion.** A function that writes a row holds a lock on its linkage until its commit. So two claims of
one linkage are decided one after the other, and the second one reads what the first one has committed. A
primary key decides between two claims of one request id.

**Clocks.** Leases are compared with the database's clock alone, and the remaining time is returned, so that
the clocks of the gateways do not matter. All other times are by the gateways' clocks, as in other levels.

**Waiting.** A request that must wait leaves an entry, its place. The transaction that ends a request sends
a notification if there is such an entry, and the gateway that gets it asks again at once. A notification
can be lost (a new connection, PgBouncer), so a gateway also asks every POLL_S. The oldest request that
waits for a linkage, by `biz_time`, is granted first, also if it waits behind others of its gateway. A place
counts for PLACE_MS; the gateway keeps it for as long as the request waits (`places`). It belongs to one
process: the same request keeps its place in another one when its callers leave here, and when it is sent
from here, until it has an outcome.

**Durability.** A claim's commit returns when it is durable, with a synchronous standby also there. An
outcome that may be late is committed with synchronous_commit=off: only a crash of the database within about
0.6 s undoes it (3 * wal_writer_delay, https://www.postgresql.org/docs/current/wal-async-commit.html), and
leaves the row in doubt, as in SQLite (ADR 9).

**Trouble.** An operation takes at most LEDGER_TIMEOUT_S, the wait for a connection included; then, and
after every error that is not the operation's own, its connection is closed without asking the server,
which may be frozen. The answer of a claim can be lost although it is committed. It is undone by the random
id of the claim as soon as the database answers again. Until then its row is SENDING, and in doubt after its
lease. The network can deliver the claim later still; then the database knows that it was taken back.
"""

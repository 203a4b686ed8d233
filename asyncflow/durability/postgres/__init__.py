"""The store on a PostgreSQL server. What it shares with SQLite's is in `sqlwriter`, `sqlreader` and `tables`.

store     the port: `PostgresStore`
address   a URL, its parts, and its password kept out of every text
schema    made, checked and migrated, in a schema of its own
locks     one writer per run: advisory locks, which the server takes back with a connection that ends
site      the writing connection: lost, found again, and only then used again
marks     what is in flight, in a table that costs no sync
"""

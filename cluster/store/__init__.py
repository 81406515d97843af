"""The store: tables, commits, leases, views, and what is read from them."""

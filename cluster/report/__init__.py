"""What happened in a store, for people: runs, health, and pages for a browser. Only reads the store."""

"""What runs on workers. Imports `schemas`, never `jobs`."""

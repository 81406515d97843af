"""What is known of English: dates, numbers, claims, grammar, places."""

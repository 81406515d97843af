"""From archive to staged files: redact, cut, encode, embed."""

"""What several jobs share: options, manifests, profiles, readers of JSON."""

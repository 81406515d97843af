"""Models: where they come from, the engines that run them, endpoints, and prompts."""

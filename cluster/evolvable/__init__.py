"""Evolvable embeddings: a language model that reads a conversation in order and keeps a latent memory of it.

After EvoEmbedding (arXiv 2606.21649). `tokens` makes ids of turns, `model` is the network, `stream` runs
many conversations through it in causal order, `state` is what a conversation leaves behind to go on from.
"""

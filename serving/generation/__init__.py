"""Answers that grow token by token: the loop, what it asks of a model, how tokens are chosen."""

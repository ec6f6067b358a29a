"""Lowering: rewrite a network into the form that a runtime needs."""

"""The Faust application: batch transport, agents, worker."""

"""From a judged bundle to a named, signed decision: register, gate, approve, and the guard on the registry."""

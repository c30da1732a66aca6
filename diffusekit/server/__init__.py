"""The web: one queue of jobs, the APIs in front of it, and the guard at the door."""

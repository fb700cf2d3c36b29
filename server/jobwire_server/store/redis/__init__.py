"""The store in Redis or Valkey: one Lua script for each verb, jobs as hashes, a sorted set for each queue and state."""

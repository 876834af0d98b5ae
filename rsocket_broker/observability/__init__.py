"""What a broker tells of itself: logs, metrics, frames of chosen clients. None of it holds a secret."""

"""The contenders: what runs in processes of its own, as a user of each would write it."""

"""The policy, the critic, the embedded tiny model."""

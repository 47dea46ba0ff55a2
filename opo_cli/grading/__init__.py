"""From a response to a reward, in worker processes that can be killed."""

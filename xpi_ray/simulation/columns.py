"""Where a simulated request's row keeps what; times in milliseconds.

Given when the request is drawn, as far as ``HOP``; the others come about on its way.
"""

ARRIVED = 0
SITE = 1
SAMPLE = 2
DEADLINE = 3
SLO = 4
EDGE_FACTOR = 5  # of every time at the edge
CLOUD_FACTOR = 6  # of every time in the cloud
HOP = 7  # a call to the cloud there and back, without link and queue

PARTITION = 8
LEVEL = 9  # that arrives, once a frame was sent
THRESHOLDS = 10  # which of ``Costs.thresholds``
EDGE_BLOCKS = 11
EDGE_ENTROPY = 12
EDGE_WAIT = 13
EDGE_MS = 14
ENCODE_MS = 15
SENT = 16
BYTES = 17
CLOUD_BUDGET = 18
REACHED = 19
BLOCK = 20  # that ran last, or waits before the next
CLOUD_MS = 21
DECODE_MS = 22
CLOUD_WAIT = 23
LINK_MS = 24
CLOUD_ENTROPY = 25
COMPLETE = 26
LINK_BPS = 27
ROUND_TRIP = 28
SPREAD = 29
TOTAL = 30  # from arrival to the answer
EXIT = 31  # that answers, 0 when none does
ENTROPY = 32  # of it
CORRECT = 33
STATUS = 34
EDGE_OVERRUN = 35  # as in ``EdgeReply``
COUNT = 36

# What STATUS says; 0 while a request is open.
ANSWERED, BEST_EFFORT, MISSED, OVERLOADED = 1, 2, 3, 4

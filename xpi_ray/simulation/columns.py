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
EDGE_EXIT = 12  # the last one that ran there, or the surest; 0 before any
EDGE_ENTROPY = 13  # of it
EDGE_WAIT = 14
EDGE_MS = 15
ENCODE_MS = 16
SENT = 17
BYTES = 18
CLOUD_BUDGET = 19
REACHED = 20
BLOCK = 21  # that ran last, or waits before the next
CLOUD_MS = 22
DECODE_MS = 23
CLOUD_WAIT = 24
LINK_MS = 25
CLOUD_EXIT = 26  # as ``EDGE_EXIT``
CLOUD_ENTROPY = 27
COMPLETE = 28
LINK_BPS = 29
ROUND_TRIP = 30
SPREAD = 31
TOTAL = 32  # from arrival to the answer
EXIT = 33  # that answers, 0 when none does
ENTROPY = 34  # of it
CORRECT = 35
STATUS = 36
EDGE_OVERRUN = 37  # as in ``EdgeReply``
CLOUD_FROM = 38  # as in ``Answer``
GOES_ON = 39  # whether the edge goes on while it crosses
EDGE_ENDS = 40  # when the edge's budget does
AT_EDGE = 41  # whether the router waits for the edge's reply
CALLED = 42  # when it began to
COUNT = 43

# What STATUS says; 0 while a request is open.
ANSWERED, BEST_EFFORT, MISSED, OVERLOADED = 1, 2, 3, 4

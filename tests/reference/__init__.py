"""The numeric specification of seqcore: every layer, loss, metric and optimizer in NumPy float64.

Forward and hand-written backward, as plainly as the equations. Imports only NumPy; the tests are its only users. It was
proved against central differences (tests/test_reference.py) and against Keras 3 (tests/test_keras.py).
"""

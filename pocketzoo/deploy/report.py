"""stub being written"""
def report(a,b,registry=None):
    from pathlib import Path
    return Path(b)

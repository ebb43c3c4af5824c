"""`python -m kaa_bench.sim` is `kaa-sim`.

The import is behind the guard because the process of each instrument imports this module again.
"""

if __name__ == "__main__":
    from kaa_bench.sim.cli import main

    main()

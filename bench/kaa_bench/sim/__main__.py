"""`python -m kaa_bench.sim`, the same as `kaa-sim`.

The import waits for the guard because the process of each instrument imports this module again.
"""

if __name__ == "__main__":
    from kaa_bench.sim.cli import main

    main()

"""`python -m kaa_bench` is `kaa-bench`.

The import is behind the guard because the process of each instrument imports this module again.
"""

if __name__ == "__main__":
    from kaa_bench.cli import main

    main()

-- See db-init/0007_flag_windows.sql. Here one transaction writes a change of a flag down and applies it, so nothing is ever
-- left over between the two: the table is the same and stays empty.

CREATE TABLE position_flag_windows (
    flag_id BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    imei    INTEGER NOT NULL,
    ts_from INTEGER NOT NULL,
    ts_to   INTEGER NOT NULL,
    PRIMARY KEY (flag_id, seq)
) STRICT;

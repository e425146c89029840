# A database in memory: rows, indexes, joins, texts.
exec sqlite3 :memory: <<'END'
.mode list
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
    INSERT INTO item SELECT i, printf('item %08d %s', i * 7919 % 120011, hex(i * 104729)), i % 97, i * 37 % 1009 / 10.0 FROM n;
CREATE INDEX by_name ON item(name);
CREATE INDEX by_kind ON item(kind, price);
SELECT kind, count(*), sum(price), min(name), max(name) FROM item GROUP BY kind ORDER BY 3 DESC LIMIT 20;
SELECT a.kind, count(*) FROM item a JOIN item b ON b.name = a.name GROUP BY a.kind ORDER BY a.kind LIMIT 10;
SELECT group_concat(name, ',') FROM (SELECT name FROM item WHERE name LIKE '%00ff%' OR name LIKE '%1a2%' ORDER BY name LIMIT 50);
UPDATE item SET name = upper(name) || '!' WHERE kind % 3 = 0;
DELETE FROM item WHERE kind % 5 = 0;
SELECT count(*), sum(length(name)) FROM item;
SELECT json_group_array(json_object('id', id, 'name', name)) FROM (SELECT * FROM item ORDER BY name LIMIT 200);
PRAGMA integrity_check;
END
